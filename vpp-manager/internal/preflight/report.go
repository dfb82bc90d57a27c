package preflight

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Version of the JSON document's layout; it changes when a field changes
// meaning.
const Version = 1

// Verdict is the outcome of a check.
type Verdict string

// The verdicts, best first. A check that does not concern the chosen drivers, or
// that could not be tried, is skipped: found says why.
const (
	OK      Verdict = "ok"
	Skipped Verdict = "skipped"
	Warning Verdict = "warning"
	Failure Verdict = "failure"
)

// severity orders verdicts; a skipped check is no worse than a good one.
func (v Verdict) severity() int {
	switch v {
	case Failure:
		return 2
	case Warning:
		return 1
	}
	return 0
}

// Finding is what a check says of one object.
type Finding struct {
	// Object is what was looked at, where a check looks at several: an uplink, a
	// NUMA node.
	Object  string  `json:"object,omitempty"`
	Verdict Verdict `json:"verdict"`
	// Found is what there is, in words.
	Found string `json:"found"`
	// Fix says what to do; set for warnings and failures.
	Fix string `json:"fix,omitempty"`
}

// Result is a Finding with the check that made it.
type Result struct {
	// Check is the check's name, stable over releases.
	Check string `json:"check"`
	Title string `json:"title"`
	Finding
}

// Report is all results, in the order of the checks.
type Report struct {
	Version int `json:"version"`
	// Verdict is the worst of all.
	Verdict Verdict  `json:"verdict"`
	Options Options  `json:"options"`
	Results []Result `json:"results"`
}

// Count is the number of results with this verdict.
func (r Report) Count(v Verdict) int {
	n := 0
	for _, res := range r.Results {
		if res.Verdict == v {
			n++
		}
	}
	return n
}

// ErrNotReady: this machine is not ready for VPP.
var ErrNotReady = errors.New("not ready for VPP")

// Err is nil when nothing failed. Otherwise it is ErrNotReady with what was
// found and how to fix it, a line for each failure. strict counts warnings too.
func (r Report) Err(strict bool) error {
	var lines []string
	for _, res := range r.Results {
		if res.Verdict == Failure || strict && res.Verdict == Warning {
			lines = append(lines, res.String())
		}
	}
	if lines == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrNotReady, strings.Join(lines, "\n  "))
}

// Outcome is Err without the details, for after the report was shown.
func (r Report) Outcome(strict bool) error {
	failures, warnings := r.Count(Failure), r.Count(Warning)
	switch {
	case failures > 0:
		return fmt.Errorf("%w: %d of %d checks failed", ErrNotReady, failures, len(r.Results))
	case strict && warnings > 0:
		return fmt.Errorf("%w: %d of %d checks warn, and --strict is given", ErrNotReady, warnings, len(r.Results))
	}
	return nil
}

// String is the result in one line.
func (r Result) String() string {
	s := r.Check
	if r.Object != "" {
		s += " " + r.Object
	}
	s += ": " + r.Found
	if r.Fix != "" {
		s += " (" + r.Fix + ")"
	}
	return s
}

func ok(format string, args ...any) Finding {
	return Finding{Verdict: OK, Found: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) Finding {
	return Finding{Verdict: Skipped, Found: fmt.Sprintf(format, args...)}
}

func warning(fix, format string, args ...any) Finding {
	return Finding{Verdict: Warning, Fix: fix, Found: fmt.Sprintf(format, args...)}
}

func failure(fix, format string, args ...any) Finding {
	return Finding{Verdict: Failure, Fix: fix, Found: fmt.Sprintf(format, args...)}
}

// of names the object of a finding.
func (f Finding) of(object string) Finding {
	f.Object = object
	return f
}

// count writes a number with its noun, in the plural where that is due.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
