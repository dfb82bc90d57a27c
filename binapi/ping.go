package binapi

import (
	"context"
	"errors"
	"fmt"

	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/core"
)

// Ping waits for VPP to answer control_ping, as long as ctx lives; the
// connection's ReplyTimeout does not bound it. It is for watching: unlike Do it
// has no room for many replies, and is not logged. After an error the Conn is
// of no further use.
func (c *Conn) Ping(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.ping(ctx)
	if err == nil {
		return nil
	}
	if cerr := c.failure(); cerr != nil {
		return cerr
	}
	if ctx.Err() == nil && !errors.Is(err, ErrDisconnected) {
		err = fmt.Errorf("%w: %w", ErrDisconnected, err)
	}
	c.fail(err) // the answer may still come in
	return err
}

func (c *Conn) ping(ctx context.Context) error {
	if err := c.failure(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(c.ctx, cancel)
	defer stop()
	// 0: no bound of the stream's own.
	stream, err := c.gov.NewStream(ctx, core.WithRequestSize(1), core.WithReplySize(1), core.WithReplyTimeout(0))
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := stream.SendMsg(&memclnt.ControlPing{}); err != nil {
		return err
	}
	m, err := stream.RecvMsg()
	if err != nil {
		return err
	}
	if _, ok := m.(*memclnt.ControlPingReply); !ok {
		return fmt.Errorf("%w: control_ping was answered with %s", errOutOfStep, m.GetMessageName())
	}
	return nil
}
