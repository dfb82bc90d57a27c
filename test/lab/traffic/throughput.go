package traffic

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Throughput sends one TCP stream from a namespace to an address in another for
// about the duration, and gives the bits a second that the receiver's program
// got, without headers.
func Throughput(fromNS, toNS string, to netip.Addr, duration time.Duration) (bitsPerSecond float64, err error) {
	l, err := listenTCP(toNS, netip.AddrPortFrom(wildcard(to), 0))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	deadline := time.Now().Add(duration + 10*time.Second)
	_ = l.SetDeadline(deadline)
	type outcome struct {
		bytes int64
		took  time.Duration
		err   error
	}
	got := make(chan outcome, 1)
	go func() {
		c, err := l.AcceptTCP()
		if err != nil {
			got <- outcome{err: err}
			return
		}
		defer c.Close()
		_ = c.SetDeadline(deadline)
		start := time.Now()
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
		got <- outcome{n, time.Since(start), err}
	}()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	c, err := dialTCP(fromNS, netip.AddrPortFrom(to, port), 5*time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(deadline)
	buf := make([]byte, 256<<10)
	for end := time.Now().Add(duration); time.Now().Before(end); {
		if _, err := c.Write(buf); err != nil {
			return 0, fmt.Errorf("%s to %s: %w", fromNS, to, err)
		}
	}
	if err := c.CloseWrite(); err != nil {
		return 0, err
	}
	o := <-got
	if o.err != nil {
		return 0, fmt.Errorf("%s from %s: %w", toNS, fromNS, o.err)
	}
	if o.bytes == 0 || o.took <= 0 {
		return 0, fmt.Errorf("%s to %s: nothing arrived", fromNS, to)
	}
	return float64(o.bytes) * 8 / o.took.Seconds(), nil
}
