package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// chunkSize is a conversation's message in bytes: a number, the time of its
// sending, and filling that depends on number and place. It is more than two
// packets, so that segmentation is part of what is tried.
const chunkSize = 4 << 10

// Conversation is one TCP connection on which both ends send numbered chunks at
// a constant rate and check all that they get, byte by byte.
type Conversation struct {
	name     string
	listener *net.TCPListener
	ends     [2]*net.TCPConn
	lines    [2]*timeline // by receiver
	stop     chan struct{}
	senders  sync.WaitGroup
	readers  sync.WaitGroup

	mu     sync.Mutex
	ending bool
	resets int
	errs   []error
}

// ConversationResult is what became of a connection.
type ConversationResult struct {
	// Chunks sent and received, of both ends together.
	Sent     int
	Received int
	// Resets are ends of the connection that were told that it is no more.
	Resets int
	// Err is everything that went wrong, resets and wrong bytes among it.
	Err error
	// MaxGap is the longest time for which an end got nothing although the
	// other had something to say.
	MaxGap time.Duration
}

// Add joins the results of connections that ran side by side.
func (r ConversationResult) Add(o ConversationResult) ConversationResult {
	return ConversationResult{
		Sent: r.Sent + o.Sent, Received: r.Received + o.Received, Resets: r.Resets + o.Resets,
		Err: errors.Join(r.Err, o.Err), MaxGap: max(r.MaxGap, o.MaxGap),
	}
}

// StartConversation connects from one namespace to an address in another; each
// end then sends rate chunks a second until Stop.
func StartConversation(fromNS, toNS string, to netip.Addr, rate int) (*Conversation, error) {
	if rate < 1 {
		return nil, fmt.Errorf("rate %d: want 1 or more chunks a second", rate)
	}
	l, err := listenTCP(toNS, netip.AddrPortFrom(wildcard(to), 0))
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	dst := netip.AddrPortFrom(to, port)
	dialled, err := dialTCP(fromNS, dst, tcpTimeout)
	if err != nil {
		l.Close()
		return nil, err
	}
	_ = l.SetDeadline(time.Now().Add(tcpTimeout))
	accepted, err := l.AcceptTCP()
	if err != nil {
		dialled.Close()
		l.Close()
		return nil, fmt.Errorf("%s: TCP from %s: %w", toNS, fromNS, err)
	}
	return converse(fmt.Sprintf("TCP %s to %s (%s)", fromNS, toNS, dst), l, [2]*net.TCPConn{dialled, accepted}, rate), nil
}

// converse begins on a connection's two ends.
func converse(name string, l *net.TCPListener, ends [2]*net.TCPConn, rate int) *Conversation {
	c := &Conversation{
		name: name, listener: l, ends: ends, lines: [2]*timeline{newTimeline(), newTimeline()},
		stop: make(chan struct{}),
	}
	for i := range c.ends {
		c.senders.Add(1)
		c.readers.Add(1)
		go c.send(c.ends[i], c.lines[1-i], time.Second/time.Duration(rate))
		go c.receive(c.ends[i], c.lines[i])
	}
	return c
}

// chunkByte is the filling at a place of a chunk.
func chunkByte(number uint64, place int) byte {
	return byte(number*31) ^ byte(place) ^ byte(place>>8*7)
}

func fillChunk(buf []byte, number uint64, stamp int64) {
	binary.BigEndian.PutUint64(buf, number)
	binary.BigEndian.PutUint64(buf[8:], uint64(stamp))
	for i := 16; i < len(buf); i++ {
		buf[i] = chunkByte(number, i)
	}
}

// checkChunk says what is wrong with a chunk that should have this number.
func checkChunk(buf []byte, number uint64) error {
	if got := binary.BigEndian.Uint64(buf); got != number {
		return fmt.Errorf("chunk %d came where %d was due", got, number)
	}
	for i := 16; i < len(buf); i++ {
		if want := chunkByte(number, i); buf[i] != want {
			return fmt.Errorf("chunk %d: byte %d is %#x, %#x was sent", number, i, buf[i], want)
		}
	}
	return nil
}

func (c *Conversation) send(conn *net.TCPConn, line *timeline, interval time.Duration) {
	defer c.senders.Done()
	buf := make([]byte, chunkSize)
	failed := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		select {
		case <-c.stop:
		case <-failed:
		}
		close(stop)
	}()
	broken := false
	paced(interval, stop, func(n int) {
		if broken {
			return
		}
		fillChunk(buf, uint64(n), line.depart())
		if _, err := conn.Write(buf); err != nil {
			broken = true
			close(failed)
			c.fail(fmt.Errorf("chunk %d: send: %w", n, err))
		}
	})
}

func (c *Conversation) receive(conn *net.TCPConn, line *timeline) {
	defer c.readers.Done()
	buf := make([]byte, chunkSize)
	for n := uint64(0); ; n++ {
		if _, err := io.ReadFull(conn, buf); err != nil {
			c.fail(fmt.Errorf("chunk %d: receive: %w", n, err))
			return
		}
		if err := checkChunk(buf, n); err != nil {
			c.fail(fmt.Errorf("wrong data: %w", err))
			return
		}
		line.arrive(n, clock())
	}
}

// fail notes an error, but for the end that Stop makes.
func (c *Conversation) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending && (errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)) {
		return
	}
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		c.resets++
	}
	c.errs = append(c.errs, fmt.Errorf("%s: %w", c.name, err))
}

// Resets are the ends of the connection that were told that it is no more, so
// far.
func (c *Conversation) Resets() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resets
}

// conversationSettle is how long Stop waits for chunks that are on the way: a
// connection may be between two retransmissions.
const conversationSettle = 5 * time.Second

// Stop ends the sending, waits for what is on the way, closes the connection and
// tells. A connection whose chunks have not all arrived by then has stalled.
func (c *Conversation) Stop() ConversationResult {
	close(c.stop)
	// A sender may sit in a write that the network does not take.
	limit := time.Now().Add(conversationSettle)
	for _, conn := range c.ends {
		_ = conn.SetWriteDeadline(limit)
	}
	c.senders.Wait()
	for _, l := range c.lines {
		l.settle(time.Until(limit))
	}
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	for _, l := range c.lines {
		if sent, received := l.counts(); received < sent && c.Resets() == 0 {
			c.fail(fmt.Errorf("stalled: %d of %d chunks have arrived", received, sent))
		}
	}
	for _, conn := range c.ends {
		_ = conn.CloseWrite()
	}
	for _, conn := range c.ends {
		_ = conn.Close()
	}
	_ = c.listener.Close()
	c.readers.Wait()
	return c.Result(Window{})
}

// Result is what became of the chunks sent within a window, with the errors of
// the whole connection so far.
func (c *Conversation) Result(w Window) ConversationResult {
	var r ConversationResult
	for _, l := range c.lines {
		s := l.result(w)
		r.Sent += s.Sent
		r.Received += s.Received
		r.MaxGap = max(r.MaxGap, s.MaxGap)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Resets, r.Err = c.resets, errors.Join(c.errs...)
	return r
}
