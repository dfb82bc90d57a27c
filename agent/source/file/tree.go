package file

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of what one object may hold: aliases can make a short text long.
const (
	maxDepth  = 64
	maxValues = 200_000
)

// tree is one object as JSON, with the line of every value in the YAML it came
// from.
type tree struct {
	json   []byte
	values []value
	lines  map[string]int // by path; made when first asked for
}

// value is a part of the JSON. Values are in the order of their start, parents
// before children.
type value struct {
	start, end int // in bytes, end exclusive
	parent     int // index of the object or list around it; -1: the root
	key        string
	index      int // in a list; -1: not in a list
	line       int
}

// lineError is an error about a line of a file, and about a field of the object
// where one is concerned.
type lineError struct {
	line  int
	field string
	msg   string
}

func (e *lineError) Error() string { return e.msg }

// newTree converts a YAML node to JSON. Errors are *lineError.
func newTree(n *yaml.Node) (*tree, error) {
	t := &tree{}
	var b bytes.Buffer
	if err := t.write(&b, n, value{parent: -1, index: -1, line: n.Line}, 0); err != nil {
		return nil, err
	}
	t.json = b.Bytes()
	return t, nil
}

func (t *tree) write(b *bytes.Buffer, n *yaml.Node, v value, depth int) error {
	v.start = b.Len()
	self := len(t.values)
	t.values = append(t.values, v)
	fail := func(line int, format string, args ...any) error {
		return &lineError{line, t.path(self), fmt.Sprintf(format, args...)}
	}
	if depth > maxDepth {
		return fail(v.line, "is nested deeper than %d levels", maxDepth)
	}
	if len(t.values) > maxValues {
		return fail(v.line, "the object has more than %d values", maxValues)
	}
	if n.Kind == yaml.AliasNode {
		if n.Alias == nil {
			return fail(v.line, "refers to an unknown anchor")
		}
		n = n.Alias
		if n.Kind == yaml.AliasNode {
			return fail(v.line, "refers to another alias")
		}
	}
	var err error
	switch n.Kind {
	case yaml.MappingNode:
		err = t.writeMapping(b, n, self, depth)
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, c := range n.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			if err = t.write(b, c, value{parent: self, index: i, line: c.Line}, depth+1); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	case yaml.ScalarNode:
		var text []byte
		if text, err = scalar(n); err != nil {
			return fail(v.line, "%s", err)
		}
		b.Write(text)
	default:
		return fail(v.line, "is neither a value, a list nor an object")
	}
	t.values[self].end = b.Len()
	return err
}

func (t *tree) writeMapping(b *bytes.Buffer, n *yaml.Node, self, depth int) error {
	seen := make(map[string]int, len(n.Content)/2)
	b.WriteByte('{')
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, c := n.Content[i], n.Content[i+1]
		field := func(name string) string { return join(t.path(self), name) }
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!null" {
			return &lineError{k.Line, t.path(self), "has a key that is not a text"}
		}
		if k.ShortTag() == "!!merge" {
			return &lineError{k.Line, field(k.Value), "merge keys are not supported; write the fields out"}
		}
		if first, dup := seen[k.Value]; dup {
			return &lineError{k.Line, field(k.Value), fmt.Sprintf("is given twice; the first is on line %d", first)}
		}
		seen[k.Value] = k.Line
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(k.Value)
		if err != nil {
			return &lineError{k.Line, field(k.Value), err.Error()}
		}
		b.Write(key)
		b.WriteByte(':')
		if err := t.write(b, c, value{parent: self, key: k.Value, index: -1, line: k.Line}, depth+1); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

// scalar is a YAML scalar in JSON. Timestamps stay texts, as Kubernetes has them.
func scalar(n *yaml.Node) ([]byte, error) {
	switch n.ShortTag() {
	case "!!null":
		return []byte("null"), nil
	case "!!bool":
		var v bool
		if err := n.Decode(&v); err != nil {
			return nil, fmt.Errorf("%q is not true or false", n.Value)
		}
		return strconv.AppendBool(nil, v), nil
	case "!!int":
		var i int64
		if err := n.Decode(&i); err == nil {
			return strconv.AppendInt(nil, i, 10), nil
		}
		var u uint64
		if err := n.Decode(&u); err != nil {
			return nil, fmt.Errorf("%q does not fit an integer of 64 bits", n.Value)
		}
		return strconv.AppendUint(nil, u, 10), nil
	case "!!float":
		var f float64
		if err := n.Decode(&f); err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%q is not a number that JSON can hold", n.Value)
		}
		return json.Marshal(f)
	case "!!str", "!!timestamp":
		return json.Marshal(n.Value)
	}
	return nil, fmt.Errorf("has the YAML tag %s, which is not supported", n.ShortTag())
}

// path of a value, as Kubernetes writes it: spec.podCIDRs[0].
func (t *tree) path(i int) string {
	v := t.values[i]
	switch {
	case v.parent < 0:
		return ""
	case v.index >= 0:
		return t.path(v.parent) + "[" + strconv.Itoa(v.index) + "]"
	}
	return join(t.path(v.parent), v.key)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// at is the value that holds the byte before offset, the innermost one.
func (t *tree) at(offset int) int {
	best := 0
	for i, v := range t.values {
		if v.start < offset && offset <= v.end {
			best = i
		}
	}
	return best
}

// line of a field. A field that is not there has the line of what would hold it.
func (t *tree) line(path string) int {
	if t.lines == nil {
		t.lines = make(map[string]int, len(t.values))
		for i, v := range t.values {
			t.lines[t.path(i)] = v.line
		}
	}
	for path != "" {
		if line, ok := t.lines[path]; ok {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return t.values[0].line
}
