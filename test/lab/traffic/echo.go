package traffic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
)

// EchoPort is where an Echo answers, TCP and UDP.
const EchoPort = 7007

// Echo sends back what it gets, in both families.
type Echo struct{ closers []io.Closer }

// NewEcho starts an echo server in a namespace.
func NewEcho(nsName string) (*Echo, error) {
	e := &Echo{}
	for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		local := netip.AddrPortFrom(a, EchoPort)
		u, err := listenUDP(nsName, local)
		if err != nil {
			e.Close()
			return nil, err
		}
		e.closers = append(e.closers, u)
		go echoUDP(u)
		l, err := listenTCP(nsName, local)
		if err != nil {
			e.Close()
			return nil, err
		}
		e.closers = append(e.closers, l)
		go echoTCP(l)
	}
	return e, nil
}

// Close stops the server.
func (e *Echo) Close() {
	for _, c := range e.closers {
		_ = c.Close()
	}
}

func echoUDP(u *net.UDPConn) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := u.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for an earlier answer
		}
		_, _ = u.WriteToUDPAddrPort(buf[:n], from)
	}
}

func echoTCP(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			// A plain copy through a buffer: what arrives is sent again as
			// packets of our own size, not spliced as it came.
			buf := make([]byte, 32<<10)
			_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, buf)
		}()
	}
}

// Peer is a pod as the tools see it.
type Peer struct {
	// Name is also its namespace.
	Name string
	IPs  []netip.Addr
	// MTU of its interface in bytes.
	MTU int
}

// Check is one kind of probe.
type Check string

// The probes.
const (
	UDPSmall Check = "UDP small"
	// UDPFull is one UDP packet each way of exactly the MTU, not to be fragmented.
	UDPFull  Check = "UDP full MTU"
	TCPSmall Check = "TCP small"
	// TCPBulk echoes BulkBytes.
	TCPBulk Check = "TCP bulk"
)

// Checks are all of them, in the order of a matrix's columns.
func Checks() []Check { return []Check{UDPSmall, UDPFull, TCPSmall, TCPBulk} }

// BulkBytes is the size of a TCPBulk transfer, each way.
const BulkBytes = 128 << 10

// Failure is a probe without the right answer.
type Failure struct {
	From, To string
	Addr     netip.Addr
	Check    Check
	Err      error
}

func (f Failure) String() string {
	return fmt.Sprintf("%s to %s (%s): %s: %v", f.From, f.To, f.Addr, f.Check, f.Err)
}

// Matrix is the outcome of probing every ordered pair.
type Matrix struct {
	Tried, OK int
	Failures  []Failure
}

// Reach probes every ordered pair of peers, with every address of the target and
// every check. Echo servers must run in all of them. progress is told the
// number done and may be nil.
func Reach(ctx context.Context, peers []Peer, checks []Check, progress func(done, of int)) (Matrix, error) {
	type probe struct {
		from, to Peer
		addr     netip.Addr
		check    Check
	}
	var todo []probe
	for _, from := range peers {
		for _, to := range peers {
			if from.Name == to.Name {
				continue
			}
			for _, a := range to.IPs {
				for _, c := range checks {
					todo = append(todo, probe{from, to, a, c})
				}
			}
		}
	}
	results := make(chan *Failure, 64)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	go func() {
		for _, p := range todo {
			if gctx.Err() != nil {
				break
			}
			g.Go(func() error {
				var failure *Failure
				if err := runProbe(p.from, p.to, p.addr, p.check); err != nil {
					failure = &Failure{p.from.Name, p.to.Name, p.addr, p.check, err}
				}
				results <- failure
				return nil
			})
		}
		_ = g.Wait()
		close(results)
	}()
	var m Matrix
	for f := range results {
		m.Tried++
		if f == nil {
			m.OK++
		} else {
			m.Failures = append(m.Failures, *f)
		}
		if progress != nil {
			progress(m.Tried, len(todo))
		}
	}
	return m, ctx.Err()
}

func runProbe(from, to Peer, a netip.Addr, check Check) error {
	dst := netip.AddrPortFrom(a, EchoPort)
	switch check {
	case UDPSmall:
		return probeUDP(from.Name, dst, 32)
	case UDPFull:
		return probeUDP(from.Name, dst, FullUDP(min(from.MTU, to.MTU), a))
	case TCPSmall:
		return probeTCP(from.Name, dst, 32)
	case TCPBulk:
		return probeTCP(from.Name, dst, BulkBytes)
	}
	return fmt.Errorf("unknown check %q", check)
}

// Time limits of one probe. UDP is repeated: loss is measured elsewhere.
const (
	udpTries   = 4
	udpTimeout = 700 * time.Millisecond
	tcpTimeout = 5 * time.Second
)

func probeUDP(nsName string, dst netip.AddrPort, size int) error {
	c, err := dialUDP(nsName, 0, dst)
	if err != nil {
		return err
	}
	defer c.Close()
	msg := pattern(size)
	buf := make([]byte, size+1)
	var last error
	for range udpTries {
		if _, err := c.Write(msg); err != nil {
			last = err
			time.Sleep(udpTimeout / 4)
			continue
		}
		_ = c.SetReadDeadline(time.Now().Add(udpTimeout))
		n, err := c.Read(buf)
		if err != nil {
			last = err
			continue
		}
		if !bytes.Equal(buf[:n], msg) {
			return fmt.Errorf("the answer of %d bytes differs from the question of %d", n, size)
		}
		return nil
	}
	return fmt.Errorf("%d bytes, %d times: %w", size, udpTries, last)
}

// EchoTCP connects from a namespace to an Echo, by whatever address leads there,
// and wants size bytes back as they were sent.
func EchoTCP(nsName string, dst netip.AddrPort, size int) error { return probeTCP(nsName, dst, size) }

func probeTCP(nsName string, dst netip.AddrPort, size int) error {
	c, err := dialTCP(nsName, dst, tcpTimeout)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(tcpTimeout))
	msg := pattern(size)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(msg)
		if err == nil {
			err = c.CloseWrite()
		}
		sent <- err
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", len(got), size, err)
	}
	if err := <-sent; err != nil {
		return err
	}
	if !bytes.Equal(got, msg) {
		return fmt.Errorf("the answer of %d bytes differs from the question of %d", len(got), size)
	}
	return nil
}

// pattern is a payload in which a lost or swapped part shows.
func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i ^ i>>8*7)
	}
	return b
}
