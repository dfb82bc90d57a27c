package preflight

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
)

// check is one row of the table.
type check struct {
	// name is stable over releases: scripts and the documentation use it.
	name, title string
	// start: what fails here keeps VPP, or its interfaces, from starting. These
	// are the checks of Quick; none of them starts VPP or takes long.
	start bool
	// skip says why the options do not need the check; nil or "": they do.
	skip func(o Options) string
	run  func(in input) []Finding
}

// input is what a check works on.
type input struct {
	Machine
	Options
	// quick: the checks of Quick alone.
	quick bool
	// Each of these is asked once, when a check first needs it: what the kernel
	// can do; the VPP that was started; the uplinks, and what is wrong with them.
	features func() Features
	started  func() (find.VPP, error)
	uplinks  func() ([]Link, []Finding)
}

func one(f func(in input) Finding) func(input) []Finding {
	return func(in input) []Finding { return []Finding{f(in)} }
}

// each runs f on every uplink that exists.
func each(f func(in input, l Link) Finding) func(input) []Finding {
	return func(in input) []Finding {
		links, _ := in.uplinks()
		var out []Finding
		for _, l := range links {
			out = append(out, f(in, l).of(l.Name))
		}
		if out == nil {
			out = append(out, skipped("no uplink to look at"))
		}
		return out
	}
}

// eachWith is each, for uplinks with one of these drivers.
func eachWith(f func(in input, l Link) Finding, drivers ...Driver) func(input) []Finding {
	return each(func(in input, l Link) Finding {
		if !slices.Contains(drivers, l.Use) {
			return skipped("only for uplinks with %s", joinDrivers(drivers))
		}
		return f(in, l)
	})
}

// needs skips a check unless uplinks or pods have one of the drivers.
func needs(drivers ...Driver) func(Options) string {
	return func(o Options) string {
		if slices.ContainsFunc(drivers, o.uses) {
			return ""
		}
		return "only for " + joinDrivers(drivers)
	}
}

// uplinkNeeds skips a check unless the uplinks have one of the drivers.
func uplinkNeeds(drivers ...Driver) func(Options) string {
	return func(o Options) string {
		if slices.ContainsFunc(drivers, o.uplinksUse) {
			return ""
		}
		return "only for uplinks with " + joinDrivers(drivers)
	}
}

// Run makes all checks. It takes a second or two: VPP is started for one of
// them.
func Run(ctx context.Context, m Machine, o Options) Report {
	return run(ctx, m, o, false, func(check) bool { return true })
}

// Quick makes the checks whose failure would keep VPP or its interfaces from
// starting, without starting VPP, in a fraction of a second. The error is
// ErrNotReady, with what was found and how to fix it.
func Quick(ctx context.Context, o Options) error {
	return QuickReport(ctx, ThisMachine(), o).Err(false)
}

// QuickReport is Quick with the warnings.
func QuickReport(ctx context.Context, m Machine, o Options) Report {
	return run(ctx, m, o, true, func(c check) bool { return c.start })
}

func run(ctx context.Context, m Machine, o Options, quick bool, want func(check) bool) Report {
	in := input{Machine: m, Options: o, quick: quick}
	in.features = sync.OnceValue(func() Features { return m.Try(ctx) })
	in.started = sync.OnceValues(func() (find.VPP, error) { return m.Find(ctx, o.VPP, groupsOf(o)...) })
	in.uplinks = sync.OnceValues(in.findUplinks)
	if o.Buffers == 0 {
		in.Buffers = in.buffersOfRun()
	}
	r := Report{Version: Version, Verdict: OK, Options: o}
	for _, c := range checks() {
		if !want(c) {
			continue
		}
		var found []Finding
		if c.skip != nil {
			if why := c.skip(o); why != "" {
				found = []Finding{skipped("%s", why)}
			}
		}
		if found == nil {
			found = c.run(in)
		}
		for _, f := range found {
			f.Found, f.Fix = oneLine(f.Found), oneLine(f.Fix)
			r.Results = append(r.Results, Result{Check: c.name, Title: c.title, Finding: f})
			if f.Verdict.severity() > r.Verdict.severity() {
				r.Verdict = f.Verdict
			}
		}
	}
	return r
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
