package file

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	kjson "sigs.k8s.io/json"
)

// decode fills object, a pointer, from the tree. Unknown and misspelt fields are
// errors, except the paths in newer, which later versions of the type have.
func (t *tree) decode(object any, newer map[string]bool) []*lineError {
	strict, err := kjson.UnmarshalStrict(t.json, object)
	if err != nil {
		return []*lineError{t.typeError(err, reflect.TypeOf(object))}
	}
	var errs []*lineError
	for _, e := range strict {
		var f kjson.FieldError
		if !errors.As(e, &f) {
			errs = append(errs, &lineError{line: t.line(""), msg: e.Error()})
			continue
		}
		if newer[f.FieldPath()] {
			continue
		}
		errs = append(errs, &lineError{t.line(f.FieldPath()), f.FieldPath(), "unknown field"})
	}
	return errs
}

// typeError says which value has the wrong type.
func (t *tree) typeError(err error, object reflect.Type) *lineError {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		i := t.at(int(wrong.Offset))
		if v := t.values[i]; i > 0 || wrong.Offset <= int64(v.end) {
			return &lineError{v.line, t.path(i), fmt.Sprintf("is %s, want %s", article(wrong.Value), typeName(wrong.Type))}
		}
	}
	// A type with a reader of its own, such as a time or a quantity, says
	// nothing of where it was: ask each such value by itself.
	if i, err := t.unreadable(0, object); err != nil {
		return &lineError{t.values[i].line, t.path(i), err.Error()}
	}
	return &lineError{line: t.line(""), msg: err.Error()}
}

// unreadable finds the first value from i on that a type's own reader refuses.
func (t *tree) unreadable(i int, typ reflect.Type) (int, error) {
	v := t.values[i]
	if typ.Kind() == reflect.Pointer && i == 0 {
		typ = typ.Elem()
	}
	if reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return i, json.Unmarshal(t.json[v.start:v.end], reflect.New(typ).Interface())
	}
	for c := i + 1; c < len(t.values) && t.values[c].start < v.end; c++ {
		if t.values[c].parent != i {
			continue
		}
		child := childType(typ, t.values[c].key)
		if child == nil {
			continue
		}
		if at, err := t.unreadable(c, child); err != nil {
			return at, err
		}
	}
	return i, nil
}

// childType is the type of a field or element; nil when there is none.
func childType(typ reflect.Type, key string) reflect.Type {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch typ.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		return typ.Elem()
	case reflect.Struct:
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == key && name != "" {
				return f.Type
			}
			if f.Anonymous && name == "" {
				if inner := childType(f.Type, key); inner != nil {
					return inner
				}
			}
		}
	}
	return nil
}

// article makes the decoder's name of a JSON value readable.
func article(value string) string {
	switch value {
	case "array":
		return "a list"
	case "object":
		return "an object"
	case "string":
		return "a text"
	case "bool":
		return "true or false"
	}
	return "a " + value
}

// typeName is a Go type in the words of YAML.
func typeName(t reflect.Type) string {
	if t == nil {
		return "another type"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text (numbers and the like in quotes)"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map, reflect.Pointer:
		return "an object"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "an integer"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "an integer of 0 or more"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return t.String()
}
