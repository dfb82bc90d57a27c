package startup

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrSnippet: a user's own piece of configuration cannot be used.
var ErrSnippet = errors.New("configuration snippet unusable")

// section of a startup.conf: a name and what stands between its braces.
type section struct {
	name       string
	statements []statement
}

// statement is a key with its values, and a block if it has one.
type statement struct {
	words []string
	block []statement // nil: none; `{}` is empty, not nil
}

// grammar tells where a statement of a section ends: keys with the number of
// words that belong to them. VPP knows no separators. What is not listed lasts
// until the end of its line, or to the next key that is.
var grammar = map[string]map[string]int{
	"unix": {
		"interactive": 0, "nodaemon": 0, "nosyslog": 0, "nocolor": 0, "nobanner": 0, "cli-prompt": 1, "cli-listen": 1,
		"use-current-dir": 0, "runtime-dir": 1, "cli-line-mode": 0, "cli-no-banner": 0, "cli-no-pager": 0,
		"poll-sleep-usec": 1, "cli-pager-buffer-limit": 1, "cli-history-limit": 1, "coredump-size": 1,
		"full-coredump": 0, "startup-config": 1, "exec": 1, "log": 1, "gid": 1, "pidfile": 1,
	},
	"api-segment": {"prefix": 1, "gid": 1, "uid": 1, "baseva": 1, "global-size": 1, "global-pvt-heap-size": 1, "api-pvt-heap-size": 1, "api-size": 1},
	"socksvr":     {"socket-name": 1, "default": 0},
	"statseg":     {"socket-name": 1, "default": 0, "size": 1, "page-size": 1, "per-node-counters": 1, "update-interval": 1},
	"memory":      {"main-heap-size": 1, "main-heap-page-size": 1, "default-hugepage-size": 1},
	"buffers":     {"buffers-per-numa": 1, "page-size": 1, "default": 2, "numa": 1},
	"cpu": {
		"use-pthreads": 0, "thread-prefix": 1, "main-core": 1, "skip-cores": 1, "relative": 0, "numa-heap-size": 1,
		"corelist-workers": 1, "coremask-workers": 1, "scheduler-policy": 1, "scheduler-priority": 1, "workers": 1,
	},
	"plugins": {"path": 1, "add-path": 1, "name-filter": 1, "vat-path": 1, "vat-name-filter": 1, "plugin": 1},
	"dpdk": {
		"no-hugetlb": 0, "telemetry": 0, "enable-tcp-udp-checksum": 0, "no-tx-checksum-offload": 0, "decimal-interface-names": 0,
		"no-multi-seg": 0, "enable-lro": 0, "max-simd-bitwidth": 1, "link-state-poll-interval": 1, "stats-poll-interval": 1,
		"dev": 1, "uio-driver": 1, "uio-bind-force": 0, "socket-mem": 1, "no-pci": 0, "blacklist": 1, "no-vmbus": 0, "vdev": 1,
		"iova-mode": 1, "huge-dir": 1, "file-prefix": 1, "log-level": 1, "main-lcore": 1,
	},
}

// reserved are keys that this program relies on: in their place a snippet may
// only say the same.
var reserved = map[string][]string{
	"unix":        {"interactive", "nodaemon", "cli-listen", "runtime-dir", "use-current-dir", "log"},
	"api-segment": {"prefix"},
	"socksvr":     {"socket-name", "default"},
	"statseg":     {"socket-name", "default"},
}

// repeated are keys that may stand many times in a section; told apart by their
// first value.
var repeated = []string{"plugin", "add-path", "dev", "blacklist", "vdev", "numa"}

// placement are keys of the cpu section that go together: a snippet with one of
// them has all of the placement for itself.
var placement = []string{"main-core", "skip-cores", "relative", "corelist-workers", "coremask-workers", "workers"}

// parse reads a snippet.
func parse(text string) ([]section, error) {
	p := parser{lines: lines(text)}
	var out []section
	for {
		name, ok := p.word()
		if !ok {
			return out, nil
		}
		if name == "{" || name == "}" {
			return nil, p.fail("a section begins with its name, not with %q", name)
		}
		if brace, ok := p.word(); !ok || brace != "{" {
			return nil, p.fail("section %s: { is missing after its name", name)
		}
		body, err := p.block(name, 1)
		if err != nil {
			return nil, err
		}
		out = append(out, section{name: name, statements: body})
	}
}

type parser struct {
	lines [][]string
	line  int // of the next word
	at    int
	last  int // line of the last word
}

// lines splits a text into words. Braces are words of their own; # begins a
// comment where a word could begin.
func lines(text string) [][]string {
	text = strings.NewReplacer("{", " { ", "}", " } ").Replace(text)
	var out [][]string
	for l := range strings.Lines(text) {
		words := strings.Fields(l)
		if i := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "#") }); i >= 0 {
			words = words[:i]
		}
		out = append(out, words)
	}
	return out
}

func (p *parser) fail(format string, args ...any) error {
	return fmt.Errorf("%w: line %d: %s", ErrSnippet, p.last+1, fmt.Sprintf(format, args...))
}

// word takes the next one.
func (p *parser) word() (string, bool) {
	w, ok := p.peek()
	if ok {
		p.last = p.line
		p.at++
	}
	return w, ok
}

func (p *parser) peek() (string, bool) {
	for p.line < len(p.lines) {
		if p.at < len(p.lines[p.line]) {
			return p.lines[p.line][p.at], true
		}
		p.line, p.at = p.line+1, 0
	}
	return "", false
}

// mostDepth bounds nesting; VPP itself uses 2.
const mostDepth = 8

// block reads up to the closing brace.
func (p *parser) block(name string, depth int) ([]statement, error) {
	if depth > mostDepth {
		return nil, p.fail("section %s: braces are nested more than %d deep", name, mostDepth)
	}
	keys := grammar[name]
	if depth > 1 {
		keys = nil
	}
	out := []statement{}
	for {
		w, ok := p.word()
		switch {
		case !ok:
			return nil, p.fail("section %s: } is missing", name)
		case w == "}":
			return out, nil
		case w == "{":
			return nil, p.fail("section %s: a block without a key", name)
		}
		st := statement{words: []string{w}}
		n, known := keys[w]
		for i := 0; ; i++ {
			next, ok := p.peek()
			if !ok || next == "{" || next == "}" {
				break
			}
			if _, key := keys[next]; known && i >= n || !known && (key || p.line != p.last) {
				break
			}
			p.at++
			p.last = p.line
			st.words = append(st.words, next)
		}
		if known && len(st.words) <= n {
			return nil, p.fail("section %s: %s has no value", name, w)
		}
		if next, ok := p.peek(); ok && next == "{" {
			p.at++
			p.last = p.line
			var err error
			if st.block, err = p.block(name, depth+1); err != nil {
				return nil, err
			}
		}
		out = append(out, st)
	}
}

// key is what a statement says something about.
func (s statement) key() string {
	if slices.Contains(repeated, s.words[0]) && len(s.words) > 1 {
		return s.words[0] + " " + s.words[1]
	}
	return s.words[0]
}

func (s statement) equal(o statement) bool {
	return slices.Equal(s.words, o.words) && slices.EqualFunc(s.block, o.block, statement.equal)
}

// merge puts a snippet into our sections: into the section of that name where
// there is one, in place of what we say of the same key. A key that this program
// relies on may not differ: ErrSnippet.
func merge(ours, theirs []section) ([]section, error) {
	out := slices.Clone(ours)
	for _, t := range theirs {
		i := slices.IndexFunc(out, func(s section) bool { return s.name == t.name })
		if i < 0 {
			out = append(out, t)
			continue
		}
		merged, err := mergeSection(out[i], t)
		if err != nil {
			return nil, err
		}
		out[i] = merged
	}
	return out, nil
}

func mergeSection(ours, theirs section) (section, error) {
	out := slices.Clone(ours.statements)
	_, listed := grammar[ours.name]
	if ours.name == "cpu" && slices.ContainsFunc(theirs.statements, places) {
		out = slices.DeleteFunc(out, places)
	}
	for _, t := range theirs.statements {
		i := slices.IndexFunc(out, func(s statement) bool { return s.key() == t.key() })
		if slices.Contains(reserved[ours.name], t.words[0]) && (i < 0 || !out[i].equal(t)) {
			why := "vpp-manager and the agent rely on it"
			if i >= 0 {
				why = fmt.Sprintf("it is %q: %s", strings.Join(out[i].words, " "), why)
			}
			return section{}, fmt.Errorf("%w: section %s: %q cannot be set; %s; leave it out", ErrSnippet, ours.name, strings.Join(t.words, " "), why)
		}
		if i < 0 || !listed {
			out = append(out, t)
		} else {
			out[i] = t
		}
	}
	return section{name: ours.name, statements: out}, nil
}

func places(s statement) bool { return slices.Contains(placement, s.words[0]) }

// render writes sections, a statement on each line.
func render(b *strings.Builder, sections []section) {
	for _, s := range sections {
		if one := oneLine(s); len(one) < 100 && len(s.statements) < 4 {
			b.WriteString(one + "\n")
			continue
		}
		b.WriteString(s.name + " {\n")
		for _, st := range s.statements {
			b.WriteString("  " + st.String() + "\n")
		}
		b.WriteString("}\n")
	}
}

func oneLine(s section) string {
	words := make([]string, len(s.statements))
	for i, st := range s.statements {
		words[i] = st.String()
	}
	return strings.TrimSpace(s.name+" { "+strings.Join(words, " ")) + " }"
}

func (s statement) String() string {
	text := strings.Join(s.words, " ")
	if s.block == nil {
		return text
	}
	words := []string{text, "{"}
	for _, b := range s.block {
		words = append(words, b.String())
	}
	return strings.Join(append(words, "}"), " ")
}
