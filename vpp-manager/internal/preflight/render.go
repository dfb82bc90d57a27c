package preflight

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// lineWidth is where the table breaks long texts, in characters.
const lineWidth = 110

// WriteJSON writes the report for programs, indented.
func (r Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// WriteTable writes the report for people: a line for each result, how to fix
// it below, and a count at the end.
func (r Report) WriteTable(w io.Writer) error {
	wide := len("CHECK")
	for _, res := range r.Results {
		wide = max(wide, len(res.label()))
	}
	var b strings.Builder
	row := func(label string, verdict string, text string) {
		indent := strings.Repeat(" ", wide+2+9)
		for i, line := range wrap(text, lineWidth-len(indent)) {
			if i == 0 {
				fmt.Fprintf(&b, "%-*s  %-7s  %s\n", wide, label, verdict, line)
				continue
			}
			fmt.Fprintf(&b, "%s%s\n", indent, line)
		}
	}
	row("CHECK", "VERDICT", "FOUND")
	for _, res := range r.Results {
		row(res.label(), string(res.Verdict), res.Found)
		if res.Fix != "" {
			row("", "", "fix: "+res.Fix)
		}
	}
	fmt.Fprintf(&b, "\n%s: %d ok, %s, %s, %d skipped\n",
		r.Verdict, r.Count(OK), count(r.Count(Warning), "warning"), count(r.Count(Failure), "failure"), r.Count(Skipped))
	text := strings.Split(b.String(), "\n")
	for i := range text {
		text[i] = strings.TrimRight(text[i], " ")
	}
	_, err := io.WriteString(w, strings.Join(text, "\n"))
	return err
}

func (r Result) label() string {
	if r.Object == "" {
		return r.Check
	}
	return r.Check + " " + r.Object
}

// wrap breaks a text at spaces into lines of at most width characters, where
// its words allow.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
