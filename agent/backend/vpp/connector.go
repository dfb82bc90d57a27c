package vpp

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// connector holds the one connection and makes it anew when it broke. Nothing
// is locked while it dials: callers share one attempt, and each waits for it no
// longer than its own context.
type connector struct {
	dial    func(context.Context) (*binapi.Conn, error)
	timeout time.Duration
	log     *logrus.Entry
	// version of the VPP that was connected last.
	version atomic.Pointer[string]

	mu      sync.Mutex // held for moments only
	conn    *binapi.Conn
	attempt *attempt // under way, or nil
	closed  bool
}

// attempt is one try to connect. conn and err are good once done is closed.
type attempt struct {
	cancel context.CancelFunc
	done   chan struct{}
	conn   *binapi.Conn
	err    error
}

func errClosed() error { return fmt.Errorf("%w: the backend is closed", dataplane.ErrDisconnected) }

// get gives the connection in use, or a new one.
func (c *connector) get(ctx context.Context) (*binapi.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, a, err := c.current()
	if conn != nil || err != nil {
		return conn, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-a.done:
		return a.conn, a.err
	}
}

// current is the connection in use, or the attempt to make one.
func (c *connector) current() (*binapi.Conn, *attempt, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, errClosed()
	}
	var broken *binapi.Conn
	if c.conn != nil {
		select {
		case <-c.conn.Done():
			broken, c.conn = c.conn, nil
		default:
			return c.conn, nil, nil
		}
	}
	if c.attempt == nil {
		ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
		c.attempt = &attempt{cancel: cancel, done: make(chan struct{})}
		go c.try(ctx, c.attempt, broken)
	}
	return nil, c.attempt, nil
}

// try carries out an attempt. broken is the connection that it replaces, if any.
func (c *connector) try(ctx context.Context, a *attempt, broken *binapi.Conn) {
	defer close(a.done)
	defer a.cancel()
	if broken != nil {
		broken.Close()
	}
	conn, err := c.dial(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempt = nil
	switch {
	case err != nil:
		a.err = fmt.Errorf("%w: %w", dataplane.ErrDisconnected, err)
	case c.closed:
		conn.Close()
		a.err = errClosed()
	default:
		v := conn.Version()
		c.version.Store(&v)
		c.log.WithField("version", v).Info("connected to VPP")
		c.conn, a.conn = conn, conn
	}
}

func (c *connector) lastVersion() string {
	if v := c.version.Load(); v != nil {
		return *v
	}
	return ""
}

// Pauses between attempts to keep the connection up.
const (
	firstPause = 50 * time.Millisecond
	mostPause  = time.Second
	// absentPause is the most while nothing answers: an attempt costs next to
	// nothing, and a VPP that is back waits for its state.
	absentPause = 200 * time.Millisecond
	// steady is how long a connection lasts that counts as a good one. After
	// one that did not, the pauses go on growing: a VPP that answers and dies,
	// again and again, is not asked without a break.
	steady = time.Second
)

// keep keeps the connection up until ctx ends. changed is called whenever it
// came up or went down.
func (c *connector) keep(ctx context.Context, changed func()) {
	for pause := firstPause; ctx.Err() == nil; {
		conn, err := c.get(ctx)
		wait := min(pause, absentPause)
		if err == nil {
			wait = pause
			up := time.Now()
			changed()
			select {
			case <-ctx.Done():
				return
			case <-conn.Done():
			}
			c.log.Warn("VPP closed the connection")
			changed()
			if time.Since(up) >= steady {
				pause = firstPause
				continue
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		pause = min(2*pause, mostPause)
	}
}

// drop breaks the connection, if there is one. Whoever asks for it next finds it
// broken, and makes another.
func (c *connector) drop() {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		conn.Drop()
	}
}

// close ends the connection, and an attempt to make one.
func (c *connector) close() error {
	c.mu.Lock()
	c.closed = true
	conn, a := c.conn, c.attempt
	c.conn = nil
	c.mu.Unlock()
	if a != nil {
		a.cancel()
		<-a.done
	}
	if conn == nil {
		return nil
	}
	return conn.Close()
}
