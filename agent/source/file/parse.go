package file

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	apiv3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidewinder-net/sidewinder/agent/source"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

// kind is a kind of object that a file may hold.
type kind struct {
	make func() any
	// newer are fields that later versions of the type have and that mean
	// nothing here.
	newer map[string]bool
}

func kinds() map[string]kind {
	return map[string]kind{
		"v1 Node": {make: func() any { return new(corev1.Node) }},
		"v1 Pod":  {make: func() any { return new(corev1.Pod) }},
		"projectcalico.org/v3 IPPool": {
			make:  func() any { return new(apiv3.IPPool) },
			newer: map[string]bool{"spec.assignmentMode": true, "spec.namespaceSelector": true},
		},
		v1alpha1.APIVersion + " " + v1alpha1.KindSRv6Locator: {make: func() any { return new(v1alpha1.SRv6Locator) }},
		v1alpha1.APIVersion + " " + v1alpha1.KindSRv6Node:    {make: func() any { return new(v1alpha1.SRv6Node) }},
	}
}

// parser reads one file.
type parser struct {
	file     string
	kinds    map[string]kind
	entries  []source.Entry
	problems []status.Problem
	// seen is where each object of this file is defined.
	seen map[string]int
}

// parse reads the text of a file: YAML documents, each an object or a List of
// them. With any problem the entries are not complete and not to be used. It
// never panics.
func parse(file string, text []byte) (entries []source.Entry, problems []status.Problem) {
	p := &parser{file: file, kinds: kinds(), seen: map[string]int{}}
	defer func() {
		// What is in the folder comes from outside: a fault in a reader of
		// such text must cost this file only, not the agent.
		if r := recover(); r != nil {
			p.fail("", &lineError{line: 1, msg: fmt.Sprintf("cannot be read: %v", r)})
			entries, problems = nil, p.problems
		}
	}()
	p.documents(text)
	if len(p.entries) == 0 && len(p.problems) == 0 {
		p.problems = append(p.problems, status.Problem{
			Object: file + ":1", Reason: "holds no object", Remedy: "remove the file to remove what it held before",
		})
	}
	source.SortProblems(p.problems)
	return p.entries, p.problems
}

func (p *parser) documents(text []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			p.fail("", syntaxError(err, text))
			return
		}
		for _, n := range doc.Content {
			if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
				continue
			}
			p.object(n, true)
		}
	}
}

// yamlLine matches the line in the YAML reader's messages.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

// unknownAnchor matches an alias in the YAML reader's messages.
var unknownAnchor = regexp.MustCompile(`^unknown anchor '([^']+)' referenced`)

// parserMessages are those for which the YAML library counts lines from 0, unlike
// for all others. It names the line where the list or mapping starts that it
// could not finish.
var parserMessages = map[string]bool{
	"did not find expected <document start>": true,
	"did not find expected node content":     true,
	"did not find expected '-' indicator":    true,
	"did not find expected key":              true,
	"did not find expected ',' or ']'":       true,
	"did not find expected ',' or '}'":       true,
	"found duplicate %YAML directive":        true,
	"found duplicate %TAG directive":         true,
	"found incompatible YAML document":       true,
	"found undefined tag handle":             true,
}

func syntaxError(err error, text []byte) *lineError {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := yamlLine.FindStringSubmatch(msg); m != nil {
		line, _ = strconv.Atoi(m[1])
		msg = msg[len(m[0]):]
		if parserMessages[msg] {
			line++
		}
	} else if m := unknownAnchor.FindStringSubmatch(msg); m != nil {
		// The library does not say where.
		if i := bytes.Index(text, []byte("*"+m[1])); i >= 0 {
			line += bytes.Count(text[:i], []byte("\n"))
		}
	}
	msg = "not YAML: " + msg
	if lines := bytes.Split(text, []byte("\n")); line <= len(lines) && bytes.HasSuffix(bytes.TrimSpace(lines[line-1]), []byte("::")) {
		msg += "; put an address that ends in a colon in quotes"
	}
	return &lineError{line: line, msg: msg}
}

// object reads one object, or a List of them where that is allowed.
func (p *parser) object(n *yaml.Node, list bool) {
	apiVersion, kindName := scalarField(n, "apiVersion"), scalarField(n, "kind")
	if list && apiVersion == "v1" && kindName == "List" {
		p.list(n)
		return
	}
	k, known := p.kinds[apiVersion+" "+kindName]
	if !known {
		p.unknownKind(n, apiVersion, kindName)
		return
	}
	id := kindName + "/" + nameOf(n, kindName)
	t, err := newTree(n)
	if err != nil {
		p.fail(id, err)
		return
	}
	o := k.make()
	if errs := t.decode(o, k.newer); len(errs) > 0 {
		for _, e := range errs {
			p.fail(id, e)
		}
		return
	}
	entry, errs := source.Convert(o)
	for _, e := range errs {
		p.fail(id, &lineError{t.line(e.Field), e.Field, e.Err.Error()})
	}
	if len(errs) > 0 {
		return
	}
	line := t.line("metadata.name")
	if first, ok := p.seen[entry.ID()]; ok {
		p.fail(entry.ID(), &lineError{line, "metadata.name", fmt.Sprintf("is defined a second time; the first is on line %d", first)})
		return
	}
	p.seen[entry.ID()] = line
	entry.SetPlaces(func(field string) string { return p.place(t.line(field)) })
	p.entries = append(p.entries, entry)
}

// list reads the items of a List, as kubectl writes it for several objects.
func (p *parser) list(n *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch k.Value {
		case "apiVersion", "kind", "metadata":
		case "items":
			if v.Kind != yaml.SequenceNode {
				p.fail("List", &lineError{k.Line, "items", "is not a list"})
				continue
			}
			for _, item := range v.Content {
				p.object(item, false)
			}
		default:
			p.fail("List", &lineError{k.Line, k.Value, "unknown field"})
		}
	}
}

func (p *parser) unknownKind(n *yaml.Node, apiVersion, kindName string) {
	switch {
	case n.Kind != yaml.MappingNode:
		p.fail("", &lineError{line: n.Line, msg: "is not an object with apiVersion and kind"})
	case kindName == "":
		p.fail("", &lineError{fieldLine(n, "kind"), "kind", "is missing; known: " + p.known()})
	case apiVersion == "":
		p.fail("", &lineError{fieldLine(n, "apiVersion"), "apiVersion", "is missing; known: " + p.known()})
	default:
		p.fail("", &lineError{fieldLine(n, "kind"), "kind", fmt.Sprintf("%q of %q is not known; known: %s", kindName, apiVersion, p.known())})
	}
}

func (p *parser) known() string {
	var names []string
	for name := range p.kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(append(names, "v1 List"), ", ")
}

func (p *parser) place(line int) string { return p.file + ":" + strconv.Itoa(line) }

// fail records a problem; id names the object where it is known.
func (p *parser) fail(id string, err error) {
	var e *lineError
	if !errors.As(err, &e) {
		e = &lineError{line: 1, msg: err.Error()}
	}
	object := p.place(e.line)
	if id != "" {
		object += ": " + id
	}
	p.problems = append(p.problems, status.Problem{Object: object, Field: e.field, Reason: e.msg})
}

// scalarField is the text of a field of a mapping; empty when there is none.
func scalarField(n *yaml.Node, name string) string {
	if v := field(n, name); v != nil && v.Kind == yaml.ScalarNode {
		return v.Value
	}
	return ""
}

// nameOf is the object's name for messages, before it is known to be valid.
func nameOf(n *yaml.Node, kindName string) string {
	m := field(n, "metadata")
	if m == nil || scalarField(m, "name") == "" {
		return "(no name)"
	}
	name := scalarField(m, "name")
	if kindName == source.KindPod {
		return cmp.Or(scalarField(m, "namespace"), metav1.NamespaceDefault) + "/" + name
	}
	return name
}

func field(n *yaml.Node, name string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// fieldLine is the line of a field, or of the mapping when it is not there.
func fieldLine(n *yaml.Node, name string) int {
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				return n.Content[i].Line
			}
		}
	}
	return n.Line
}
