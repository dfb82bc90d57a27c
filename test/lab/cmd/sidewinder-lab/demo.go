package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/test/lab"
	"github.com/sidewinder-net/sidewinder/test/lab/tree"
)

// demoFlags are the command line.
type demoFlags struct {
	dataplane           string
	nodes, pods, paths  int
	keep                bool
	report, bin, vppBin string
	// bare: bring the lab up and keep it, without showing or checking anything.
	bare bool
	// only, where set, are the parts to run instead of the demo's.
	only func(*demo) []part
}

// part of a demo.
type part struct {
	name string
	do   func(context.Context) error
}

func demoCommand() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Build a cluster, show how pods talk over SRv6, and check it",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	f.common(cmd)
	cmd.Flags().BoolVar(&f.keep, "keep", false, "leave it up until Ctrl-C and say how to look around")
	cmd.Flags().StringVar(&f.report, "report", "", "write the outcome to this file as JSON")
	return cmd
}

func upCommand() *cobra.Command {
	f := demoFlags{keep: true, bare: true}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Build a cluster and leave it up until Ctrl-C",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	f.common(cmd)
	return cmd
}

// maxDemoPods on each node: every pod is to reach every pod.
const maxDemoPods = 20

func (f *demoFlags) common(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.dataplane, "dataplane", "auto", "auto, vpp, linux, or mixed (odd nodes on VPP)")
	number := func(into *int, name string, value int, what string, low, high int) {
		*into = value
		fl.Var(wholeNumber{name, into}, name, fmt.Sprintf("%s, %d to %d", what, low, high))
	}
	number(&f.nodes, "nodes", 3, "nodes", lab.MinNodes, lab.MaxNodes)
	number(&f.pods, "pods", 2, "pods on each node", lab.MinPods, maxDemoPods)
	number(&f.paths, "paths", 2, "parallel paths between the nodes", lab.MinPaths, lab.MaxPaths)
	fl.StringVar(&f.bin, "bin", "", "directory of the programs (default: where this one is)")
	fl.StringVar(&f.vppBin, "vpp", "", "the vpp program (default: SIDEWINDER_VPP, or the one on PATH)")
}

func (f demoFlags) run(ctx context.Context) error {
	if f.pods < lab.MinPods || f.pods > maxDemoPods {
		return fmt.Errorf("pods: %d is not between %d and %d", f.pods, lab.MinPods, maxDemoPods)
	}
	if f.bin == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		f.bin = filepath.Dir(self)
	}
	bin, err := filepath.Abs(f.bin)
	if err != nil {
		return err
	}
	if f.report != "" {
		if f.report, err = filepath.Abs(f.report); err != nil {
			return err
		}
		// Said now, not after all the work.
		if err := writable(f.report); err != nil {
			return err
		}
	}
	choice, err := choose(ctx, f.dataplane, f.vppBin)
	if err != nil {
		return err
	}
	opts := lab.Options{
		Nodes: f.nodes, Pods: f.pods, Paths: f.paths,
		Dataplane: choice.dataplane, VPP: choice.vpp, BinDir: bin, Dir: "/",
	}
	if err := opts.Validate(); err != nil {
		return err
	}
	if err := choice.pass(); err != nil {
		return err
	}
	needRoot := ""
	if choice.usesVPP() {
		needRoot = "VPP reads raw frames and locks memory, which a user namespace does not allow; DATAPLANE=linux runs without"
	}
	return tree.Run(tree.Options{
		NeedRoot:    needRoot,
		Description: fmt.Sprintf("%s, %d nodes, %d pods each, %d paths", choice.kind, f.nodes, f.pods, f.paths),
	}, func(in tree.Inside) error {
		opts.Dir = in.Dir
		return runDemo(ctx, f, choice, opts, in)
	})
}

// demo is one run.
type demo struct {
	flags  demoFlags
	choice choice
	in     tree.Inside
	screen *screen
	lab    *lab.Lab
	report report

	statuses []status.Status
}

func runDemo(ctx context.Context, f demoFlags, c choice, opts lab.Options, in tree.Inside) error {
	d := &demo{flags: f, choice: c, in: in, screen: newScreen(os.Stdout)}
	d.report = report{
		Dataplane: c.kind, Nodes: f.nodes, Pods: f.pods, Paths: f.paths,
		Failures: []string{}, Left: []string{}, FlowRuns: []flowLabels{}, Durations: map[string]ms{}, Failover: []failover{},
		NodeRemoval: nodeRemoval{Left: []string{}},
	}
	log, closeLog, err := labLog(in.Dir)
	if err != nil {
		return err
	}
	defer closeLog()
	opts.Log = log
	opts.Step = func(name string, do func() error) error {
		key, _, _ := strings.Cut(name, ":")
		return d.screen.step("start "+key, name, func(func(string, ...any)) error { return do() })
	}
	start := time.Now()
	d.screen.printf("%s\n", d.screen.paint(bold, "Sidewinder: pods on different nodes talk over SRv6"))
	d.screen.printf("  dataplane %s: %s\n", c.kind, c.why)
	who := "root"
	if in.Rootless {
		who = "an ordinary user, in a user namespace"
	}
	d.screen.printf("  lab %s, as %s: %d nodes, %d pods on each, %d parallel paths\n\n", in.ID, who, f.nodes, f.pods, f.paths)

	d.lab, err = lab.New(opts)
	if err != nil {
		return d.finish(ctx, start, err)
	}
	err = tree.ServeControl(ctx, in.Dir, d.lab.Command)
	if err == nil {
		err = d.lab.Start(ctx)
	}
	if err == nil {
		if f.bare {
			err = d.showTable(ctx)
		} else {
			d.show(ctx)
		}
	}
	return d.finish(ctx, start, err)
}

// labLog writes what the lab itself does into the work directory.
func labLog(dir string) (*logrus.Logger, func(), error) {
	path := filepath.Join(dir, "logs")
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, nil, err
	}
	out, err := os.Create(filepath.Join(path, "lab.log"))
	if err != nil {
		return nil, nil, err
	}
	log := logrus.New()
	log.SetOutput(out)
	log.SetLevel(logrus.DebugLevel)
	return log, func() { out.Close() }, nil
}

// failed notes a failure.
func (d *demo) failed(what string, err error) {
	if err != nil {
		d.report.Failures = append(d.report.Failures, what+": "+err.Error())
	}
}

// parts are what the demo shows.
func (d *demo) parts() []part {
	if d.flags.only != nil {
		return d.flags.only(d)
	}
	return []part{
		{"table", d.showTable},
		{"VPP agrees", d.compareVPP},
		{"reachability", d.reach},
		{"VPP carries", d.vppCarried},
		{"hosts and services", d.surroundings},
		{"flow labels", d.spread},
		{"agent restart", d.restartAgents},
		{"failover", d.failover(demoFailover(), lab.BoundsOf)},
		{"throughput", d.measureThroughput},
		{"node removal", d.removeNode},
	}
}

// show runs the demo's parts. One that fails does not keep the next from running.
func (d *demo) show(ctx context.Context) {
	for _, part := range d.parts() {
		if ctx.Err() != nil {
			return
		}
		err := part.do(ctx)
		if err != nil && ctx.Err() == nil {
			d.failed(part.name, err)
			d.screen.printf("%s\n", indent(d.screen.paint(red, err.Error())))
		}
	}
}

// finish gives the verdict and takes the lab down: a lab to be kept only after
// the user has looked around. err is why it could not be started.
func (d *demo) finish(ctx context.Context, start time.Time, err error) error {
	interrupted := ctx.Err() != nil
	if err != nil && !interrupted {
		d.failed("start", err)
		d.screen.printf("%s\n", indent(d.screen.paint(red, err.Error())))
	}
	kept := d.flags.keep && err == nil && !interrupted
	if kept {
		d.conclude(time.Since(start))
		d.explain()
		waiting := time.Now()
		<-ctx.Done()
		// The time of people is not the demo's.
		start = start.Add(time.Since(waiting))
		d.screen.printf("\n")
	}
	before := len(d.report.Failures)
	d.takeDown()
	if interrupted {
		return &tree.ExitError{Code: tree.ExitInterrupted}
	}
	if !kept || len(d.report.Failures) > before {
		d.conclude(time.Since(start))
	}
	if len(d.report.Failures) > 0 {
		return &tree.ExitError{Code: 1, Dir: d.in.Dir}
	}
	return nil
}

// takeDown ends the lab and looks for what is left.
func (d *demo) takeDown() {
	if d.lab == nil {
		return
	}
	err := d.screen.step("take down", "taken down, nothing left behind", func(note noter) error {
		if err := d.lab.Close(); err != nil {
			return err
		}
		left, err := tree.Residue()
		if err != nil {
			return err
		}
		d.report.Left = append(d.report.Left, left...)
		if len(left) > 0 {
			note("found %d", len(left))
			return errors.New(strings.Join(left, "\n"))
		}
		return nil
	})
	if err != nil {
		d.failed("left behind", err)
		d.screen.printf("%s\n", indent(d.screen.paint(red, err.Error())))
	}
}

// conclude writes the report and the verdict.
func (d *demo) conclude(took time.Duration) {
	for key, t := range d.screen.durations {
		d.report.Durations[key] = millis(t)
	}
	d.report.Durations["total"] = millis(took)
	d.report.OK = len(d.report.Failures) == 0
	if d.flags.report != "" {
		if err := d.report.write(d.flags.report); err != nil {
			d.failed("report", err)
		} else {
			d.screen.printf("  report: %s\n", d.flags.report)
		}
	}
	d.verdict(took)
}

func (d *demo) verdict(took time.Duration) {
	r := d.report
	if len(r.Failures) > 0 {
		d.screen.printf("\n%s after %s:\n", d.screen.paint(red, "FAILED"), seconds(took))
		for _, f := range r.Failures {
			d.screen.printf("%s", indent("- "+f))
		}
		d.screen.printf("  logs, configuration and objects: %s\n", d.in.Dir)
		return
	}
	if d.flags.bare {
		return
	}
	if d.flags.only != nil {
		d.screen.printf("\n%s in %s\n", d.screen.paint(green, "OK"), seconds(took))
		return
	}
	d.screen.printf("\n%s in %s: %d of %d probes answered, %d flows wore %d flow labels over %d paths (busiest %.1f%%), "+
		"%d packets and 0 lost while agents restarted, TCP %s.\n",
		d.screen.paint(green, "OK"), seconds(took), r.Reachability.OK, r.Reachability.Tried,
		r.FlowLabels.Flows, r.FlowLabels.Distinct, len(r.FlowLabels.Paths), 100*r.FlowLabels.MaxPathShare,
		r.AgentRestart.Sent, bitRate(r.Throughput.TCPBitsPerSecond))
}

func bitRate(v float64) string {
	switch {
	case v >= 1e9:
		return fmt.Sprintf("%.2f Gbit/s", v/1e9)
	case v >= 1e6:
		return fmt.Sprintf("%.1f Mbit/s", v/1e6)
	}
	return fmt.Sprintf("%.0f kbit/s", v/1e3)
}
