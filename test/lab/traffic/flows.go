package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/test/lab/ns"
)

// Tap is a place in the underlay where packets are watched.
type Tap struct {
	// Name of the path, for the result.
	Name string
	// Namespace and Interface; what comes in there is counted.
	Namespace, Interface string
}

// FlowOptions say what to send. Flows are UDP, alike in all but source port and
// family, from one namespace to one pod: whatever spreads them over paths must
// be something that the outer header says of the inner flow.
type FlowOptions struct {
	From string
	To   Peer
	// Flows in all, shared out among the target's addresses.
	Flows int
	// Packets of each flow.
	Packets int
	Taps    []Tap
}

// FlowResult is what the taps saw.
type FlowResult struct {
	Flows int `json:"flows"`
	// Distinct outer flow labels among the flows.
	Distinct int `json:"distinct"`
	// Paths are packets seen, by tap.
	Paths map[string]int `json:"paths"`
	// FlowsByPath are flows seen, by tap.
	FlowsByPath map[string]int `json:"flowsByPath"`
	// MaxPathShare is the busiest path's part of the packets, 0 to 1.
	MaxPathShare float64 `json:"maxPathShare"`
	Packets      int     `json:"packets"`
	// Received packets at the target.
	Received int `json:"received"`
	// Unlabelled flows had a packet with flow label 0; Changing ones had more
	// than one label; Split ones were seen on more than one path.
	Unlabelled int `json:"unlabelled"`
	Changing   int `json:"changing"`
	Split      int `json:"split"`
	// WithSRH are packets with a segment routing header.
	WithSRH int `json:"withSRH"`
}

// firstPort is the first flow's source port; below the usual ephemeral range.
const firstPort = 10000

// flowID tells flows of one run apart.
type flowID struct {
	inner4 bool
	port   uint16
}

type flowSeen struct {
	labels map[uint32]bool
	paths  map[string]bool
}

// counter gathers what all taps see.
type counter struct {
	dstPort uint16

	mu     sync.Mutex
	flows  map[flowID]*flowSeen
	result FlowResult
}

// SpreadFlows sends the flows and watches them at the taps.
func SpreadFlows(ctx context.Context, o FlowOptions) (FlowResult, error) {
	if len(o.To.IPs) == 0 || o.Flows < 1 || o.Packets < 1 || o.Flows > 20000 {
		return FlowResult{}, fmt.Errorf("flows: %d flows of %d packets to %d addresses: want 1 to 20000, 1 or more, 1 or more", o.Flows, o.Packets, len(o.To.IPs))
	}
	sinks := make([]*sink, len(o.To.IPs))
	for i, a := range o.To.IPs {
		s, err := newSink(o.To.Name, a)
		if err != nil {
			return FlowResult{}, err
		}
		defer s.conn.Close()
		sinks[i] = s
	}
	// One port for all families, so that a flow is told by family and source.
	c := &counter{dstPort: flowPort, flows: map[flowID]*flowSeen{}}
	c.result.Paths, c.result.FlowsByPath = map[string]int{}, map[string]int{}
	for _, t := range o.Taps {
		c.result.Paths[t.Name], c.result.FlowsByPath[t.Name] = 0, 0
		conn, err := openTap(t)
		if err != nil {
			return FlowResult{}, err
		}
		defer conn.Close()
		go c.watch(t.Name, conn)
	}
	received := func() (n int) {
		for _, s := range sinks {
			n += s.count()
		}
		return n
	}
	if err := sendFlows(ctx, o, received); err != nil {
		return FlowResult{}, err
	}
	c.settle(o.Flows*o.Packets, received)
	r := c.sum()
	r.Flows, r.Received = o.Flows, received()
	return r, nil
}

// flowPort is the flows' destination port.
const flowPort = 7008

// Packets on the way at once, so that nobody's queue overflows: what is measured
// is the spread. A lost packet holds the sender up for catchUp at most.
const (
	maxOnTheWay = 128
	catchUp     = 100 * time.Millisecond
)

func sendFlows(ctx context.Context, o FlowOptions, received func() int) error {
	given := 0 // up as lost
	payload := make([]byte, 64)
	for i := range o.Flows {
		if err := ctx.Err(); err != nil {
			return err
		}
		to := netip.AddrPortFrom(o.To.IPs[i%len(o.To.IPs)], flowPort)
		conn, err := dialUDP(o.From, uint16(firstPort+i), to)
		if err != nil {
			return err
		}
		for range o.Packets {
			if _, err := conn.Write(payload); err != nil {
				conn.Close()
				return fmt.Errorf("flow %d to %s: %w", i, to, err)
			}
		}
		conn.Close()
		sent := (i + 1) * o.Packets
		for end := time.Now().Add(catchUp); sent-received()-given > maxOnTheWay; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				given = sent - received()
				break
			}
		}
	}
	return nil
}

func openTap(t Tap) (*packet.Conn, error) {
	var conn *packet.Conn
	err := ns.Do(t.Namespace, func() error {
		ifi, err := net.InterfaceByName(t.Interface)
		if err != nil {
			return err
		}
		// A socket for one protocol sees what comes in, not what goes out.
		conn, err = packet.Listen(ifi, packet.Datagram, unix.ETH_P_IPV6, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("watch %s/%s: %w", t.Namespace, t.Interface, err)
	}
	if err := growBuffer(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("watch %s/%s: %w", t.Namespace, t.Interface, err)
	}
	return conn, nil
}

func (c *counter) watch(path string, conn *packet.Conn) {
	buf := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		if p, ok := parseOuter(buf[:n]); ok && p.dstPort == c.dstPort {
			c.add(path, p)
		}
	}
}

func (c *counter) add(path string, p outerPacket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := flowID{p.inner4, p.srcPort}
	f := c.flows[id]
	if f == nil {
		f = &flowSeen{labels: map[uint32]bool{}, paths: map[string]bool{}}
		c.flows[id] = f
	}
	f.labels[p.flowLabel] = true
	f.paths[path] = true
	c.result.Paths[path]++
	c.result.Packets++
	if p.hasSRH {
		c.result.WithSRH++
	}
}

// settle waits until all packets were seen and received, or none has come for a
// while.
func (c *counter) settle(want int, received func() int) {
	last, idle := -1, 0
	for idle < 25 {
		c.mu.Lock()
		now := c.result.Packets + received()
		c.mu.Unlock()
		if now >= 2*want {
			return
		}
		if now == last {
			idle++
		} else {
			last, idle = now, 0
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (c *counter) sum() FlowResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.result
	labels := map[uint32]bool{}
	for _, f := range c.flows {
		for l := range f.labels {
			labels[l] = true
		}
		for p := range f.paths {
			r.FlowsByPath[p]++
		}
		if f.labels[0] {
			r.Unlabelled++
		}
		if len(f.labels) > 1 {
			r.Changing++
		}
		if len(f.paths) > 1 {
			r.Split++
		}
	}
	r.Distinct = len(labels)
	for _, n := range r.Paths {
		if r.Packets > 0 {
			r.MaxPathShare = max(r.MaxPathShare, float64(n)/float64(r.Packets))
		}
	}
	return r
}

// sink counts what arrives at the target.
type sink struct {
	conn *net.UDPConn
	mu   sync.Mutex
	n    int
}

func newSink(nsName string, a netip.Addr) (*sink, error) {
	conn, err := listenUDP(nsName, netip.AddrPortFrom(wildcard(a), flowPort))
	if err != nil {
		return nil, err
	}
	if err := growBuffer(conn); err != nil {
		conn.Close()
		return nil, err
	}
	s := &sink{conn: conn}
	go func() {
		buf := make([]byte, 2048)
		for {
			if _, err := conn.Read(buf); errors.Is(err, net.ErrClosed) {
				return
			} else if err == nil {
				s.mu.Lock()
				s.n++
				s.mu.Unlock()
			}
		}
	}()
	return s, nil
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}
