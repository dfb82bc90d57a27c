package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/test/lab"
	"github.com/sidewinder-net/sidewinder/test/lab/fabric"
	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
)

type noter = func(format string, args ...any)

func (d *demo) showTable(ctx context.Context) error {
	d.statuses = nil
	for _, n := range d.lab.Nodes() {
		s, err := n.Status(ctx)
		if err != nil {
			return fmt.Errorf("status of %s: %w", n.Name, err)
		}
		d.statuses = append(d.statuses, s)
		if n.Dataplane == config.DataplaneVPP && d.report.VPPVersion == "" {
			d.report.VPPVersion = s.Dataplane.Version
		}
	}
	d.report.PodMTU = d.lab.Pods()[0].MTU
	d.screen.printf("\n%s\n", indent(table(d.statuses)))
	return nil
}

// compareVPP holds the table against what VPP itself shows.
func (d *demo) compareVPP(ctx context.Context) error {
	if !d.choice.usesVPP() {
		return nil
	}
	return d.screen.step("compare", "VPP's own tables show the same", func(note noter) error {
		var errs []error
		compared := 0
		for i, n := range d.lab.Nodes() {
			if n.Dataplane == config.DataplaneVPP {
				errs = append(errs, n.CompareVPP(ctx, d.statuses[i]))
				compared++
			}
		}
		note("sr policies, sr steering-policies, sr localsids on %d nodes", compared)
		return errors.Join(errs...)
	})
}

func (d *demo) peers() []traffic.Peer {
	var out []traffic.Peer
	for _, p := range d.lab.Pods() {
		out = append(out, p.Peer())
	}
	return out
}

// maxShown failures of one kind are spelt out.
const maxShown = 10

func (d *demo) reach(ctx context.Context) error {
	return d.screen.step("reachability", "every pod reaches every pod", func(note noter) error {
		m, err := traffic.Reach(ctx, d.peers(), traffic.Checks(), func(done, of int) { note("%d of %d", done, of) })
		if err != nil {
			return err
		}
		d.report.Reachability = reachability{Tried: m.Tried, OK: m.OK}
		note("%d of %d probes (IPv4 and IPv6, TCP and UDP, small and full MTU of %d)", m.OK, m.Tried, d.report.PodMTU)
		if m.OK == m.Tried && m.Tried > 0 {
			return nil
		}
		lines := []string{fmt.Sprintf("%d of %d probes failed", m.Tried-m.OK, m.Tried)}
		for i, f := range m.Failures {
			if i == maxShown {
				lines = append(lines, "...")
				break
			}
			lines = append(lines, f.String())
		}
		return errors.New(strings.Join(lines, "\n"))
	})
}

// vppCarried wants the packets of the probes to have gone through VPP, not past
// it through the kernel.
func (d *demo) vppCarried(ctx context.Context) error {
	if !d.choice.usesVPP() {
		return nil
	}
	return d.screen.step("VPP carries", "VPP itself decapsulated the packets", func(note noter) error {
		var errs []error
		var total uint64
		for i, n := range d.lab.Nodes() {
			if n.Dataplane != config.DataplaneVPP {
				continue
			}
			carried, err := n.VPPCarried(ctx)
			if err != nil {
				return err
			}
			for _, sid := range d.statuses[i].SIDs {
				if !strings.HasPrefix(sid.Behaviour, "End.DT") {
					continue
				}
				address, err := netip.ParseAddr(strings.TrimSuffix(sid.SID, "/128"))
				if err != nil {
					return err
				}
				if carried[address] == 0 {
					errs = append(errs, fmt.Errorf("%s: VPP counts no packet to %s (%s)", n.Name, sid.SID, sid.Behaviour))
				}
				total += carried[address]
			}
		}
		note("%d so far", total)
		return errors.Join(errs...)
	})
}

// surroundings tries what is beside pods talking to pods, where a node has two
// pods: a service needs one on its own node.
func (d *demo) surroundings(ctx context.Context) error {
	nodes := d.lab.Nodes()
	if len(nodes[0].Pods()) < 2 {
		return nil
	}
	return d.screen.step("hosts and services", "hosts, services and a host outside are reached", func(note noter) error {
		w, err := d.lab.Surround(nodes[0], nodes[1])
		if err != nil {
			return err
		}
		defer w.Close()
		before, err := nodes[0].Status(ctx)
		if err != nil {
			return err
		}
		worked, err := w.Try(ctx)
		d.report.Surroundings = reachability{Tried: len(w.Ways), OK: worked}
		note("%d of %d ways: pods and hosts, services that the kernel translates, masquerade", worked, len(w.Ways))
		if nodes[0].RunsVPP() {
			after, serr := nodes[0].Status(ctx)
			err = errors.Join(err, serr, lab.KeptByKernel(before, after))
		}
		return err
	})
}

// The spread of flows.
const (
	spreadFlows   = 1000
	spreadPackets = 4
)

// maxShare is how much one of k equal paths may carry of n flows: 3.8 standard
// deviations above its share, so that a fair hash fails once in some thousand
// runs. It is 0.56 for two paths and 1,000 flows.
func maxShare(paths, flows int) float64 {
	p := 1 / float64(paths)
	return min(1, p+3.795*math.Sqrt(p*(1-p)/float64(flows)))
}

// spread measures once for each kind of sender in the lab.
func (d *demo) spread(ctx context.Context) error {
	nodes := d.lab.Nodes()
	var errs []error
	done := map[string]bool{}
	for i, from := range nodes {
		if done[from.Dataplane] {
			continue
		}
		done[from.Dataplane] = true
		errs = append(errs, d.spreadFrom(ctx, from, nodes[(i+1)%len(nodes)]))
	}
	if len(d.report.FlowRuns) > 0 {
		d.report.FlowLabels = slices.MaxFunc(d.report.FlowRuns, func(a, b flowLabels) int {
			return int(math.Copysign(1, a.MaxPathShare-b.MaxPathShare))
		})
	}
	return errors.Join(errs...)
}

func (d *demo) spreadFrom(ctx context.Context, from, to *lab.Node) error {
	o := traffic.FlowOptions{
		From: from.Pods()[0].Name, To: to.Pods()[0].Peer(),
		Flows: spreadFlows, Packets: spreadPackets,
	}
	for _, s := range d.lab.Fabric().Spines() {
		o.Taps = append(o.Taps, traffic.Tap{Name: s, Namespace: s, Interface: fabric.SpinePort(from.ID)})
	}
	var r traffic.FlowResult
	name := fmt.Sprintf("%d flows from %s (%s) over %d paths", o.Flows, from.Name, from.Dataplane, len(o.Taps))
	err := d.screen.step("flow labels "+from.Dataplane, name, func(note noter) error {
		var err error
		if r, err = traffic.SpreadFlows(ctx, o); err != nil {
			return err
		}
		d.report.FlowRuns = append(d.report.FlowRuns, flowLabels{Sender: from.Dataplane, FlowResult: r})
		note("%d distinct flow labels, busiest path %.1f%%", r.Distinct, 100*r.MaxPathShare)
		return checkSpread(r, o)
	})
	d.screen.printf("%s", indent(picture(r)))
	return err
}

func checkSpread(r traffic.FlowResult, o traffic.FlowOptions) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	want := o.Flows * o.Packets
	// What is measured here is the spread: the other steps count every packet
	// that is lost, and a busy machine may overrun a queue in this one. A packet
	// that is seen twice, or received and not seen, is wrong in any case.
	if r.Packets > want || r.Received > r.Packets || want-r.Received > want/100 {
		bad("%d packets were sent, %d seen on the paths, %d received", want, r.Packets, r.Received)
	}
	if r.Unlabelled > 0 {
		bad("%d flows have flow label 0: the encapsulation writes none", r.Unlabelled)
	}
	if r.Changing > 0 {
		bad("%d flows changed their flow label under way: packets of one flow may overtake each other", r.Changing)
	}
	if r.Split > 0 {
		bad("%d flows were split over paths", r.Split)
	}
	// An ideal hash of 1,000 flows onto 2^20 labels lets one pair share one in
	// every other run; VPP's lets some ten do.
	if r.Distinct < o.Flows*95/100 {
		bad("only %d distinct flow labels for %d flows", r.Distinct, o.Flows)
	}
	if limit := maxShare(len(o.Taps), o.Flows); r.MaxPathShare > limit {
		bad("the busiest path carried %.1f%% of the packets, at most %.1f%% is even", 100*r.MaxPathShare, 100*limit)
	}
	return errors.Join(errs...)
}

// picture draws the packets on each path.
func picture(r traffic.FlowResult) string {
	names := make([]string, 0, len(r.Paths))
	for name := range r.Paths {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	var b strings.Builder
	for _, name := range names {
		share := 0.0
		if r.Packets > 0 {
			share = float64(r.Paths[name]) / float64(r.Packets)
		}
		fmt.Fprintf(&b, "%-8s %-*s %5.1f%%  %d packets, %d flows\n", name, barWidth, bar(share), 100*share, r.Paths[name], r.FlowsByPath[name])
	}
	return b.String()
}

// streamRate is packets a second of each stream while agents restart.
const streamRate = 500

// restartAgents kills and restarts the agents at both ends of running streams.
func (d *demo) restartAgents(ctx context.Context) error {
	return d.screen.step("agent restart", "agents killed and restarted under traffic", func(note noter) error {
		nodes := d.lab.Nodes()
		a, b := nodes[0].Pods()[0], nodes[1].Pods()[0]
		var streams []*traffic.Stream
		for _, way := range [][2]*lab.Pod{{a, b}, {b, a}} {
			for _, to := range way[1].IPs {
				s, err := traffic.StartStream(way[0].Name, way[1].Name, to, streamRate)
				if err != nil {
					return err
				}
				streams = append(streams, s)
			}
		}
		pause := func(t time.Duration) {
			select {
			case <-ctx.Done():
			case <-time.After(t):
			}
		}
		pause(200 * time.Millisecond)
		var errs []error
		for _, n := range nodes[:2] {
			note("%s", n.Name)
			errs = append(errs, n.KillAgent())
			pause(300 * time.Millisecond)
			if err := n.StartAgent(ctx); err != nil {
				errs = append(errs, err)
				break
			}
			errs = append(errs, d.lab.WaitConverged(ctx))
			d.report.AgentRestart.Restarts++
			pause(200 * time.Millisecond)
		}
		var r traffic.StreamResult
		for _, s := range streams {
			r = r.Add(s.Stop())
		}
		ar := &d.report.AgentRestart
		ar.Sent, ar.Lost, ar.MaxGapMillis = r.Sent, r.Lost, float64(r.MaxGap.Microseconds())/1000
		note("%d packets sent, %d lost, longest gap %.0f ms", ar.Sent, ar.Lost, ar.MaxGapMillis)
		if r.Lost > 0 {
			errs = append(errs, fmt.Errorf("%d of %d packets were lost (%d refused by the sender's kernel)", r.Lost, r.Sent, r.SendErrors))
		}
		return errors.Join(errs...)
	})
}

// throughputTime is the length of each measurement.
const throughputTime = 2 * time.Second

func (d *demo) measureThroughput(ctx context.Context) error {
	return d.screen.step("throughput", "TCP throughput between two nodes, one stream", func(note noter) error {
		nodes := d.lab.Nodes()
		from, to := nodes[0].Pods()[0], nodes[1].Pods()[0]
		for _, m := range []struct {
			family int
			into   *float64
		}{{4, &d.report.Throughput.TCPBitsPerSecond}, {6, &d.report.Throughput.TCP6BitsPerSecond}} {
			addr, ok := to.Addr(m.family)
			if !ok {
				return fmt.Errorf("%s has no IPv%d address", to.Name, m.family)
			}
			var err error
			if *m.into, err = traffic.Throughput(from.Name, to.Name, addr, throughputTime); err != nil {
				return err
			}
		}
		note("IPv4 %s, IPv6 %s", bitRate(d.report.Throughput.TCPBitsPerSecond), bitRate(d.report.Throughput.TCP6BitsPerSecond))
		return ctx.Err()
	})
}
