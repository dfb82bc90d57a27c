package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/test/lab"
	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
)

// failover is what one kind of disturbance of VPP cost, in the report.
type failover struct {
	// Kind is "kill" (SIGKILL), "stop" (SIGSTOP), "restart" (by plan),
	// "crashloop" or "none": the same measurement with VPP left alone, which
	// shows what is the machine's own.
	Kind  string `json:"kind"`
	Times int    `json:"times"`
	// Sent and Lost are UDP packets of all streams, each of RatePerStream.
	Sent          int `json:"sent"`
	Lost          int `json:"lost"`
	RatePerStream int `json:"ratePerStream"`
	// MaxLost is what one stream lost at most by one event.
	MaxLost int `json:"maxLost"`
	// MaxGapMillis is the longest time for which nothing of a stream arrived
	// although something should have.
	MaxGapMillis    ms  `json:"maxGapMillis"`
	TCPResets       int `json:"tcpResets"`
	TCPMaxGapMillis ms  `json:"tcpMaxGapMillis"`
	// HostSent and HostLost are the nodes' own pings over the shared uplink.
	HostSent     int `json:"hostSent"`
	HostLost     int `json:"hostLost"`
	HostMaxGap   ms  `json:"hostMaxGapMillis"`
	HostTCPReset int `json:"hostTCPResets"`
	// MaxBackMillis is the longest time until VPP carried the traffic again.
	MaxBackMillis ms `json:"maxBackMillis"`
	// AskedFor are the events after which the manager had given VPP up, or
	// paused long, and was asked for a restart.
	AskedFor int `json:"restartsAskedFor"`
	// Limits are what is promised of one event; negative or 0: nothing is.
	LimitLost      int `json:"limitLost"`
	LimitGapMillis ms  `json:"limitGapMillis"`
	// Broken are the events that broke a limit.
	Broken int             `json:"broken"`
	Events []failoverEvent `json:"events"`
}

// failoverEvent is one disturbance.
type failoverEvent struct {
	At      time.Time `json:"at"`
	Sent    int       `json:"sent"`
	Lost    int       `json:"lost"`
	MaxLost int       `json:"maxLost"`
	// WorstStream lost MaxLost; empty when none lost anything.
	WorstStream  string `json:"worstStream,omitempty"`
	MaxGapMillis ms     `json:"maxGapMillis"`
	// GapAfterMillis is when that gap began, after VPP was disturbed: at once, or
	// when VPP took over again.
	GapAfterMillis ms `json:"gapAfterMillis"`
	// PauseMillis is the longest time for which a sender did not send.
	PauseMillis  ms  `json:"senderMaxPauseMillis"`
	TCPGapMillis ms  `json:"tcpMaxGapMillis"`
	HostSent     int `json:"hostSent"`
	HostLost     int `json:"hostLost"`
	// LinkDrops are packets of whatever traffic that links with a full queue
	// dropped meanwhile: the machine's losses.
	LinkDrops uint64 `json:"linkDrops"`
	// HostGapMillis is the longest gap of the nodes' own pings meanwhile.
	HostGapMillis ms `json:"hostMaxGapMillis"`
	BackMillis    ms `json:"backMillis"`
}

// planned disturbances of one run.
type planned struct {
	kind  lab.Disturbance
	times int
}

// demoFailover is short enough for a demo.
func demoFailover() []planned {
	return []planned{{lab.DisturbKill, 3}, {lab.DisturbStop, 2}, {lab.DisturbRestart, 3}, {lab.DisturbCrashLoop, 1}}
}

// everyFailover is every kind so many times.
func everyFailover(times int) []planned {
	var out []planned
	for _, k := range lab.Disturbances() {
		out = append(out, planned{k, times})
	}
	return out
}

// maxTimes of `failover --times`.
const maxTimes = 1000

func failoverCommand() *cobra.Command {
	f := demoFlags{}
	times := 0
	cmd := &cobra.Command{
		Use:   "failover",
		Short: "Kill, stop, restart and crash-loop VPP under traffic, and tell what it costs",
		Long: "Two nodes with VPP and a pod each. While UDP streams of 1,000 packets/s, TCP connections\n" +
			"and the nodes' own pings run between them, VPP on the first node is killed (SIGKILL),\n" +
			"stopped (SIGSTOP), restarted by plan and crash-looped, each so many times.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if times < 1 || times > maxTimes {
				return fmt.Errorf("times: %d is not between 1 and %d", times, maxTimes)
			}
			f.only = func(d *demo) []part { return []part{{"failover", d.failover(everyFailover(times), lab.LimitsOf)}} }
			return f.run(cmd.Context())
		},
	}
	f.common(cmd)
	fl := cmd.Flags()
	fl.Lookup("dataplane").DefValue, f.dataplane = config.DataplaneVPP, config.DataplaneVPP
	f.nodes, f.pods = 2, 1
	fl.Lookup("nodes").DefValue, fl.Lookup("pods").DefValue = "2", "1"
	times = 20
	fl.Var(wholeNumber{"times", &times}, "times", fmt.Sprintf("of each kind, 1 to %d", maxTimes))
	fl.StringVar(&f.report, "report", "", "write the outcome to this file as JSON")
	return cmd
}

// An event begins a little before VPP is disturbed, so that what is on the way at
// that moment is part of it, and lasts for settle after VPP is back. Before the
// next nothing happens for quiet.
const (
	lead   = 20 * time.Millisecond
	settle = 300 * time.Millisecond
	quiet  = 500 * time.Millisecond
)

// window is an event's part of the measurement.
type window struct {
	kind  lab.Disturbance
	in    traffic.Window
	back  time.Duration
	asked bool
	drops uint64 // of links, meanwhile
}

// failover disturbs VPP on the first node that has it, with traffic from and to
// its pods, and judges what that cost: beyond these limits it fails. What misses
// lab.LimitsOf alone is shown.
func (d *demo) failover(plan []planned, limits func(lab.Disturbance) lab.Limits) func(context.Context) error {
	return func(ctx context.Context) error {
		if !d.choice.usesVPP() {
			return nil
		}
		a, b := d.failoverNodes()
		var missed error
		err := d.screen.step("failover", fmt.Sprintf("VPP on %s fails under traffic to and from %s", a.Name, b.Name), func(note noter) error {
			w, err := lab.StartWatch(a, b)
			if err != nil {
				return err
			}
			windows, err := disturb(ctx, a, plan, d.lab.LinkDrops, note)
			w.Stop()
			d.report.Failover = summarise(windows, w.Result)
			events, lost := 0, 0
			for _, k := range d.report.Failover {
				if k.Kind != string(lab.DisturbNone) {
					events, lost = events+k.Times, lost+k.Lost
				}
			}
			note("%d times, %d packets lost", events, lost)
			err = errors.Join(err, judge(windows, w.Result, limits))
			if err == nil {
				missed = judge(windows, w.Result, lab.LimitsOf)
			}
			return err
		})
		d.screen.printf("%s", indent(failoverTable(d.report.Failover)))
		if missed != nil {
			d.screen.printf("%s", indent("Aims that this machine missed while it was busy (make failover holds them as limits):\n"+missed.Error()+"\n"))
		}
		return err
	}
}

// failoverNodes are one with VPP, and another.
func (d *demo) failoverNodes() (a, b *lab.Node) {
	nodes := d.lab.Nodes()
	for i, n := range nodes {
		if n.Dataplane == config.DataplaneVPP {
			return n, nodes[(i+1)%len(nodes)]
		}
	}
	return nodes[0], nodes[1]
}

// disturb does what is planned, one after the other, each after a quiet time.
func disturb(ctx context.Context, n *lab.Node, plan []planned, drops func() (uint64, error), note noter) ([]window, error) {
	pause := func(t time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(t):
		}
	}
	var windows []window
	rest := func() {
		e := window{kind: lab.DisturbNone}
		e.in.From = time.Now()
		pause(quiet)
		e.in.To = time.Now()
		windows = append(windows, e)
	}
	for _, p := range plan {
		for i := range p.times {
			if ctx.Err() != nil {
				return windows, ctx.Err()
			}
			note("%s, %d of %d", p.kind, i+1, p.times)
			rest()
			e := window{kind: p.kind}
			dropped, err := drops()
			if err != nil {
				return windows, err
			}
			e.in.From = time.Now()
			pause(lead)
			begin := time.Now()
			err = n.Disturb(ctx, p.kind)
			if err == nil {
				_, e.asked, err = n.WaitVPPBack(ctx, begin)
			}
			e.back = time.Since(begin)
			pause(settle)
			e.in.To = time.Now()
			now, dropsErr := drops()
			e.drops = now - dropped
			windows = append(windows, e)
			if err := errors.Join(err, dropsErr); err != nil {
				return windows, fmt.Errorf("%s, the %d. time: %w", p.kind, i+1, err)
			}
		}
	}
	return windows, nil
}

// noise is the gap that the machine shows while nothing happens: of nine windows
// in ten it is the longest, so that one bad moment excuses nothing.
func noise(windows []window, result func(traffic.Window) lab.WatchResult) time.Duration {
	var gaps []time.Duration
	for _, w := range windows {
		if w.kind == lab.DisturbNone {
			gaps = append(gaps, result(w.in).MaxGap)
		}
	}
	if len(gaps) == 0 {
		return 0
	}
	slices.Sort(gaps)
	return gaps[(len(gaps)*9+9)/10-1]
}

// judge names every event that broke a limit.
func judge(windows []window, result func(traffic.Window) lab.WatchResult, limits func(lab.Disturbance) lab.Limits) error {
	still := noise(windows, result)
	var errs []error
	count := map[lab.Disturbance]int{}
	for _, w := range windows {
		count[w.kind]++
		if err := limits(w.kind).Check(result(w.in), still); err != nil {
			if w.drops > 0 {
				err = fmt.Errorf("%w (full queues of links dropped %d packets meanwhile)", err, w.drops)
			}
			errs = append(errs, fmt.Errorf("%s %d: %w", w.kind, count[w.kind], err))
		}
	}
	return errors.Join(errs...)
}

// summarise gives one entry for each kind, in the order in which they happened.
func summarise(windows []window, result func(traffic.Window) lab.WatchResult) []failover {
	still := noise(windows, result)
	var out []failover
	at := map[lab.Disturbance]int{}
	for _, w := range windows {
		i, ok := at[w.kind]
		if !ok {
			i = len(out)
			at[w.kind] = i
			limits := lab.LimitsOf(w.kind)
			out = append(out, failover{
				Kind: string(w.kind), RatePerStream: lab.WatchRate, LimitLost: limits.Lost, LimitGapMillis: millis(limits.Gap),
			})
		}
		k, r := &out[i], result(w.in)
		k.Times++
		k.Sent, k.Lost, k.MaxLost = k.Sent+r.Sent, k.Lost+r.Lost, max(k.MaxLost, r.WorstLost)
		k.MaxGapMillis, k.TCPMaxGapMillis = max(k.MaxGapMillis, millis(r.MaxGap)), max(k.TCPMaxGapMillis, millis(r.TCPMaxGap))
		k.HostSent, k.HostLost, k.HostMaxGap = k.HostSent+r.HostSent, k.HostLost+r.HostLost, max(k.HostMaxGap, millis(r.HostMaxGap))
		// Resets are counted over the whole time: a connection has one life.
		k.TCPResets, k.HostTCPReset = r.TCPResets, r.HostTCPResets
		k.MaxBackMillis = max(k.MaxBackMillis, millis(w.back))
		if w.asked {
			k.AskedFor++
		}
		if lab.LimitsOf(w.kind).Check(r, still) != nil {
			k.Broken++
		}
		k.Events = append(k.Events, failoverEvent{
			At: w.in.From.Add(lead), Sent: r.Sent, Lost: r.Lost, MaxLost: r.WorstLost, WorstStream: r.WorstStream, MaxGapMillis: millis(r.MaxGap), GapAfterMillis: after(w.in.From.Add(lead), r.MaxGapAt),
			PauseMillis: millis(r.MaxPause), TCPGapMillis: millis(r.TCPMaxGap), HostSent: r.HostSent, HostLost: r.HostLost, LinkDrops: w.drops, HostGapMillis: millis(r.HostMaxGap), BackMillis: millis(w.back),
		})
	}
	return out
}

// after is the time from one moment to another, 0 where that is none.
func after(from, to time.Time) ms {
	if to.IsZero() {
		return 0
	}
	return millis(to.Sub(from))
}

// failoverTable shows the kinds.
func failoverTable(all []failover) string {
	if len(all) == 0 {
		return ""
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "VPP IS\tTIMES\tUDP SENT\tLOST\tAT MOST AT ONCE\tLONGEST GAP\tTCP RESETS\tTCP GAP\tHOST PINGS LOST\tVPP BACK WITHIN")
	names := map[lab.Disturbance]string{
		lab.DisturbNone: "left alone", lab.DisturbKill: "killed (SIGKILL)", lab.DisturbStop: "stopped (SIGSTOP)",
		lab.DisturbRestart: "restarted by plan", lab.DisturbCrashLoop: fmt.Sprintf("killed %d times in a row", lab.CrashLoop),
	}
	for _, k := range all {
		back := "-"
		if k.MaxBackMillis > 0 {
			back = fmt.Sprintf("%.1f s", k.MaxBackMillis/1000)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%.1f ms\t%d\t%.1f ms\t%d of %d\t%s\n", names[lab.Disturbance(k.Kind)],
			k.Times, k.Sent, k.Lost, k.MaxLost, k.MaxGapMillis, k.TCPResets, k.TCPMaxGapMillis, k.HostLost, k.HostSent, back)
	}
	w.Flush()
	return b.String()
}
