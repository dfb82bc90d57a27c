package binapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/core"
)

// Call is one request to VPP and, after Conn.Do, its outcome.
type Call struct {
	// Err is nil when VPP carried out the request; a *RetvalError when it
	// refused; ErrDisconnected (wrapped) when no answer came.
	Err error

	name, key string
	req       api.Message
	// dump: any number of details, then the reply to a control ping.
	dump    bool
	receive func(api.Message) error
	sent    time.Time
}

// Name is the API message's name.
func (c *Call) Name() string { return c.name }

// newCall is a request with one reply.
func newCall[R api.Message](key string, req api.Message, receive func(R) error) *Call {
	return &Call{name: req.GetMessageName(), key: key, req: req, receive: typed(req, receive)}
}

// newDump is a request with any number of details.
func newDump[R api.Message](req api.Message, receive func(R)) *Call {
	return &Call{
		name: req.GetMessageName(), req: req, dump: true,
		receive: typed(req, func(r R) error { receive(r); return nil }),
	}
}

func typed[R api.Message](req api.Message, receive func(R) error) func(api.Message) error {
	return func(m api.Message) error {
		r, ok := m.(R)
		if !ok {
			return fmt.Errorf("%w: %s was answered with %s", errOutOfStep, req.GetMessageName(), m.GetMessageName())
		}
		return receive(r)
	}
}

// errOutOfStep: replies no longer match requests.
var errOutOfStep = errors.New("replies are out of step")

const (
	// window bounds the requests in flight, so that their replies always fit
	// the reply buffer, where GoVPP drops what does not fit.
	window = 4096
	// replyBuffer holds the replies of a full window and the details of dumps
	// that arrive faster than they are read.
	replyBuffer = 65536
)

// Do sends the calls and waits for all replies. Every call is tried, whatever
// becomes of the others; the outcome of each is in its Err. The error returned
// is about the connection alone: then the Conn is closed, and calls without an
// answer have ErrDisconnected.
func (c *Conn) Do(ctx context.Context, calls ...*Call) error {
	if len(calls) == 0 {
		return ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.exchange(ctx, calls)
	if err != nil {
		// Replies of abandoned calls may still come in: never read them as
		// the replies of others.
		c.fail(err)
	}
	return err
}

func (c *Conn) exchange(ctx context.Context, calls []*Call) error {
	unanswered := func(from int, err error) error {
		if !errors.Is(err, ErrDisconnected) && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", ErrDisconnected, err)
		}
		for _, call := range calls[from:] {
			call.Err = err
			c.log(call)
		}
		return err
	}
	if err := c.failure(); err != nil {
		return unanswered(0, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(c.ctx, cancel)
	defer stop()
	stream, err := c.gov.NewStream(ctx, core.WithRequestSize(1), core.WithReplySize(replyBuffer), core.WithReplyTimeout(c.replyTimeout))
	if err != nil {
		return unanswered(0, err)
	}
	defer stream.Close()

	slots := make(chan struct{}, window)
	// GoVPP's stream cannot read replies before the first request is out.
	if err := send(ctx, stream, calls[:1], slots); err != nil {
		return unanswered(0, err)
	}
	sendErr := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		sendErr <- send(ctx, stream, calls[1:], slots)
	}()
	// The sender must be gone before the stream is closed.
	defer func() { cancel(); <-done }()

	for i, call := range calls {
		if err := receive(stream, call); err != nil {
			select {
			case serr := <-sendErr:
				if serr != nil && !errors.Is(serr, context.Canceled) {
					err = serr
				}
			default:
			}
			if cerr := c.failure(); cerr != nil {
				err = cerr
			}
			return unanswered(i, err)
		}
		<-slots
		c.log(call)
	}
	return nil
}

// send writes the requests, never more than the window ahead of the replies.
func send(ctx context.Context, stream api.Stream, calls []*Call, slots chan<- struct{}) error {
	for _, call := range calls {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		call.sent = time.Now()
		if err := stream.SendMsg(call.req); err != nil {
			return err
		}
		if call.dump {
			if err := stream.SendMsg(&memclnt.ControlPing{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive reads all that answers one call. Its error is about the connection.
func receive(stream api.Stream, call *Call) error {
	for {
		m, err := stream.RecvMsg()
		if err != nil {
			return err
		}
		if _, ping := m.(*memclnt.ControlPingReply); ping && call.dump {
			return nil
		}
		if err := call.receive(m); errors.Is(err, errOutOfStep) {
			return err
		} else if err != nil {
			call.Err = err
		}
		if !call.dump {
			return nil
		}
	}
}

// log writes the one line that every call gets.
func (c *Conn) log(call *Call) {
	if !c.logger.Logger.IsLevelEnabled(logrus.DebugLevel) {
		return
	}
	e := c.logger.WithFields(logrus.Fields{"message": call.name, "key": call.key})
	if !call.sent.IsZero() {
		e = e.WithField("duration", time.Since(call.sent))
	}
	if call.Err != nil {
		e = e.WithError(call.Err)
	}
	e.Debug("VPP call")
}
