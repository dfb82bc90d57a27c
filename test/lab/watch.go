package lab

import (
	"errors"
	"fmt"
	"time"

	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
)

// Rates of a Watch, a second.
const (
	WatchRate     = 1000 // packets of each UDP stream
	watchChunks   = 200  // chunks each way of each TCP connection
	watchHostRate = 200  // pings
)

// Watch is traffic between two nodes that shows what happens to it: UDP streams
// each way between two pods, TCP connections between them that are kept open,
// and the nodes' own pings and a connection over the same uplinks.
type Watch struct {
	streams  []*traffic.Stream
	names    []string // of the streams
	pods     []*traffic.Conversation
	pings    []*traffic.Ping
	host     *traffic.Conversation
	finished bool
}

// WatchResult is what became of a Watch's traffic.
type WatchResult struct {
	// Sent and Lost are UDP packets of all streams, WorstLost those that one
	// stream lost; MaxGap is any stream's.
	Sent, Lost, WorstLost int
	// WorstStream is the one that lost most; empty when none did.
	WorstStream string
	MaxGap      time.Duration
	// MaxGapAt is when the longest gap began.
	MaxGapAt time.Time
	// MaxPause is the longest time for which a sender of UDP did not send: the
	// machine's own, or packets that nobody takes from the sender.
	MaxPause time.Duration
	// TCPResets are ends of pods' connections that were reset, TCPMaxGap the
	// longest time for which one got nothing.
	TCPResets int
	TCPMaxGap time.Duration
	// HostSent and HostLost are the nodes' pings; HostMaxGap is theirs.
	HostSent, HostLost int
	HostMaxGap         time.Duration
	// HostTCPResets and HostTCPMaxGap are of the nodes' own connection.
	HostTCPResets int
	HostTCPMaxGap time.Duration
	// Err has the connections' own words: resets, wrong bytes, stalls.
	Err error
}

// StartWatch begins between the first pods of two nodes: IPv4 one way and IPv6
// the other by UDP, both families by TCP.
func StartWatch(a, b *Node) (*Watch, error) {
	w := &Watch{}
	if err := w.start(a, b); err != nil {
		w.Stop()
		return nil, err
	}
	return w, nil
}

func (w *Watch) start(a, b *Node) error {
	if len(a.Pods()) == 0 || len(b.Pods()) == 0 {
		return fmt.Errorf("%s and %s need a pod each", a.Name, b.Name)
	}
	here, there := a.Pods()[0], b.Pods()[0]
	for _, way := range []struct {
		from, to *Pod
		family   int
	}{{here, there, 4}, {there, here, 6}} {
		to, ok := way.to.Addr(way.family)
		if !ok {
			return fmt.Errorf("%s has no IPv%d address", way.to.Name, way.family)
		}
		// The connection first: by then everybody knows everybody.
		c, err := traffic.StartConversation(way.from.Name, way.to.Name, to, watchChunks)
		if err != nil {
			return err
		}
		w.pods = append(w.pods, c)
		s, err := traffic.StartStream(way.from.Name, way.to.Name, to, WatchRate)
		if err != nil {
			return err
		}
		w.streams = append(w.streams, s)
		w.names = append(w.names, fmt.Sprintf("%s to %s, IPv%d", way.from.Name, way.to.Name, way.family))
	}
	var err error
	if w.host, err = traffic.StartConversation(a.Name, b.Name, b.Underlay(), watchChunks); err != nil {
		return err
	}
	for i, way := range [][2]*Node{{a, b}, {b, a}} {
		p, err := traffic.StartPing(way[0].Name, way[1].Underlay(), watchHostRate, uint16(i+1))
		if err != nil {
			return err
		}
		w.pings = append(w.pings, p)
	}
	return nil
}

// Result is what became of the traffic of a window. Before Stop, what is on the
// way counts as lost: leave a moment between the end of a window and the call.
func (w *Watch) Result(in traffic.Window) WatchResult {
	var r WatchResult
	for i, s := range w.streams {
		one := s.Result(in)
		if one.Lost > r.WorstLost {
			r.WorstStream = w.names[i]
		}
		r.Sent, r.Lost = r.Sent+one.Sent, r.Lost+one.Lost
		r.WorstLost, r.MaxPause = max(r.WorstLost, one.Lost), max(r.MaxPause, one.MaxSendGap)
		if one.MaxGap > r.MaxGap {
			r.MaxGap, r.MaxGapAt = one.MaxGap, one.MaxGapAt
		}
		if w.finished {
			r.Err = errors.Join(r.Err, s.ClockMoved())
		}
	}
	for _, p := range w.pings {
		one := p.Result(in)
		r.HostSent, r.HostLost, r.HostMaxGap = r.HostSent+one.Sent, r.HostLost+one.Lost, max(r.HostMaxGap, one.MaxGap)
	}
	for _, c := range w.pods {
		one := c.Result(in)
		r.TCPResets, r.TCPMaxGap, r.Err = r.TCPResets+one.Resets, max(r.TCPMaxGap, one.MaxGap), errors.Join(r.Err, one.Err)
	}
	if w.host != nil {
		one := w.host.Result(in)
		r.HostTCPResets, r.HostTCPMaxGap, r.Err = one.Resets, one.MaxGap, errors.Join(r.Err, one.Err)
	}
	return r
}

// Stop ends the traffic and gives the result of all of it. It may be called
// again.
func (w *Watch) Stop() WatchResult {
	if w.finished {
		return w.Result(traffic.Window{})
	}
	for _, s := range w.streams {
		s.Stop()
	}
	for _, p := range w.pings {
		p.Stop()
	}
	for _, c := range w.pods {
		c.Stop()
	}
	if w.host != nil {
		w.host.Stop()
	}
	w.finished = true
	return w.Result(traffic.Window{})
}

// Limits are what a disturbance may cost, as the project promises it.
type Limits struct {
	// Lost packets of one UDP stream of WatchRate; negative: no limit.
	Lost int
	// Gap of one UDP stream; 0: no limit.
	Gap time.Duration
}

// LimitsOf are the limits of one disturbance. TCP connections are never reset,
// and the nodes' own traffic loses nothing, in any.
func LimitsOf(d Disturbance) Limits {
	switch d {
	case DisturbKill:
		return Limits{Lost: 2, Gap: 10 * time.Millisecond}
	case DisturbStop:
		return Limits{Lost: -1, Gap: 600 * time.Millisecond}
	case DisturbRestart:
		return Limits{Lost: 0}
	case DisturbCrashLoop:
		return Limits{Lost: 2 * CrashLoop, Gap: 10 * time.Millisecond}
	}
	return Limits{Lost: 0}
}

// BoundsOf are limits that hold on a busy machine as well, where packets wait for
// a processor until a queue is full, and nobody may run for a second: beyond them
// something is wrong. They say nothing about gaps, which are the machine's then.
func BoundsOf(d Disturbance) Limits {
	switch d {
	case DisturbKill, DisturbRestart:
		return Limits{Lost: 200}
	case DisturbCrashLoop:
		return Limits{Lost: 200 * CrashLoop}
	}
	return Limits{Lost: -1}
}

// Check says which limits a result breaks. noise is the gap that the machine
// shows while nothing happens: it is no part of what a disturbance costs.
func (l Limits) Check(r WatchResult, noise time.Duration) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if l.Lost >= 0 && r.WorstLost > l.Lost {
		bad("a stream of %d packets/s lost %d, at most %d is promised", WatchRate, r.WorstLost, l.Lost)
	}
	if l.Gap > 0 && r.MaxGap > l.Gap+noise {
		bad("a gap of %s, at most %s is promised (and %s the machine shows while nothing happens)", millis(r.MaxGap), millis(l.Gap), millis(noise))
	}
	if r.TCPResets > 0 {
		bad("%d ends of pods' TCP connections were reset", r.TCPResets)
	}
	if r.HostLost > 0 {
		bad("%d of %d of the nodes' own pings were lost", r.HostLost, r.HostSent)
	}
	if r.HostTCPResets > 0 {
		bad("%d ends of the nodes' own TCP connection were reset", r.HostTCPResets)
	}
	return errors.Join(append(errs, r.Err)...)
}

// millis writes a duration as milliseconds with one decimal.
func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
