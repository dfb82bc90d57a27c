package binapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"go.fd.io/govpp/adapter/socketclient"
	"go.fd.io/govpp/binapi/vpe"
	"go.fd.io/govpp/core"
)

// Options say how to connect.
type Options struct {
	// Socket is the path of VPP's API socket.
	Socket string
	// ClientName is how VPP lists this client. Default "sidewinder".
	ClientName string
	// Require names what must be there besides the core messages: the drivers'
	// plugins. Without it only the core messages are checked.
	Require []Group
	// ReplyTimeout bounds the wait for each reply; after it VPP counts as
	// gone. Default 10 s.
	ReplyTimeout time.Duration
	// Log gets one debug line for each call. Default: none.
	Log *logrus.Entry
}

// Conn is a connection to one VPP. It is safe for concurrent use; batches of
// calls follow one another. When the connection breaks it stays broken: dial
// again.
type Conn struct {
	version      string
	replyTimeout time.Duration
	logger       *logrus.Entry

	mu       sync.Mutex // one batch at a time
	gov      *core.Connection
	lifeline net.Conn

	// ctx ends when the connection does; its cause says why.
	ctx    context.Context
	cancel context.CancelCauseFunc
	once   sync.Once
}

// Dial connects, and tries again until ctx ends when VPP is not there yet. It
// gives up at once on what waiting does not cure: a VPP without the messages
// needed (*IncompatibleError).
func Dial(ctx context.Context, o Options) (*Conn, error) {
	if o.Socket == "" {
		return nil, errors.New("VPP API socket: no path given")
	}
	if o.ClientName == "" {
		o.ClientName = "sidewinder"
	}
	if o.ReplyTimeout <= 0 {
		o.ReplyTimeout = 10 * time.Second
	}
	if o.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		l.SetLevel(logrus.PanicLevel)
		o.Log = logrus.NewEntry(l)
	}
	hush()
	const first, most = 20 * time.Millisecond, 100 * time.Millisecond
	for wait := first; ; wait = min(2*wait, most) {
		c, err := dial(ctx, o)
		if err == nil {
			return c, nil
		}
		var inc *IncompatibleError
		if errors.As(err, &inc) || errors.Is(err, os.ErrPermission) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %s: %w", ErrNotConnectable, o.Socket, err)
		case <-time.After(wait):
		}
	}
}

// hush makes GoVPP write nothing to the standard error, where it is when nobody
// says otherwise: all that matters of it is in the errors that Dial and Do give.
// Whoever wants to see what it says sets DEBUG_GOVPP (see GoVPP's manual). Its
// loggers are variables of its packages, so this is done once, before it runs.
var hush = sync.OnceFunc(func() {
	if os.Getenv("DEBUG_GOVPP") != "" {
		return
	}
	l := logrus.New()
	l.SetOutput(io.Discard)
	core.SetLogger(l)
	socketclient.SetLogger(l)
})

// patience is how long one try may take: GoVPP knows no context, and a VPP that
// hangs takes the connection and says nothing.
func patience(ctx context.Context) time.Duration {
	const most = 2 * time.Second
	if end, ok := ctx.Deadline(); ok {
		return max(min(time.Until(end), most), time.Millisecond)
	}
	return most
}

// dial tries once.
func dial(ctx context.Context, o Options) (*Conn, error) {
	// GoVPP does not tell when VPP closes the connection. A second one, on
	// which nothing is ever said, does.
	d := net.Dialer{Timeout: patience(ctx)}
	lifeline, err := d.DialContext(ctx, "unix", o.Socket)
	if err != nil {
		return nil, err
	}
	client := socketclient.NewVppClient(o.Socket)
	client.SetClientName(o.ClientName)
	client.SetConnectTimeout(patience(ctx))
	client.SetDisconnectTimeout(100 * time.Millisecond)
	gov, err := core.Connect(client)
	if err != nil {
		lifeline.Close()
		return nil, err
	}
	c := &Conn{replyTimeout: o.ReplyTimeout, logger: o.Log, gov: gov, lifeline: lifeline}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	go c.watch()

	var v vpe.ShowVersionReply
	err = c.Do(ctx, newCall("", &vpe.ShowVersion{}, func(r *vpe.ShowVersionReply) error { v = *r; return nil }))
	if err == nil {
		c.version = v.Version
	}
	if missing := missingMessages(gov, o.Require); len(missing) > 0 {
		c.Close()
		return nil, &IncompatibleError{Version: c.version, Missing: missing}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// watch waits for VPP to close the lifeline.
func (c *Conn) watch() {
	var b [1]byte
	_, err := c.lifeline.Read(b[:])
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		err = errors.New("VPP closed the connection")
	}
	c.fail(fmt.Errorf("%w: %w", ErrDisconnected, err))
}

// fail marks the connection broken; the first reason stays.
func (c *Conn) fail(err error) { c.cancel(err) }

// failure is why the connection is broken, or nil.
func (c *Conn) failure() error {
	if c.ctx.Err() == nil {
		return nil
	}
	err := context.Cause(c.ctx)
	if !errors.Is(err, ErrDisconnected) {
		err = fmt.Errorf("%w: %w", ErrDisconnected, err)
	}
	return err
}

// Version is VPP's own version text, such as "25.10-release".
func (c *Conn) Version() string { return c.version }

// Done is closed when the connection is broken or closed.
func (c *Conn) Done() <-chan struct{} { return c.ctx.Done() }

// Drop breaks the connection at once: calls that wait for VPP end with
// ErrDisconnected. It is for a VPP that is known to hang, and does not wait for
// it. The Conn is to be closed all the same.
func (c *Conn) Drop() { c.fail(fmt.Errorf("%w: it was dropped", ErrDisconnected)) }

// Close ends the connection. VPP keeps everything it holds.
func (c *Conn) Close() error {
	c.once.Do(func() {
		broken := c.ctx.Err() != nil
		c.fail(fmt.Errorf("%w: closed", ErrDisconnected))
		c.lifeline.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		if broken {
			// GoVPP waits for VPP to say good-bye, and for its reader to end:
			// not our caller's time.
			go c.gov.Disconnect()
			return
		}
		c.gov.Disconnect()
	})
	return nil
}
