// Package vpp is the dataplane.Backend on FD.io VPP, over its binary API.
//
// It keeps nothing of VPP's state in memory: names, ownership and settings are read back from
// VPP at every call, so a fresh instance finds what an older one made, and
// after a restart of VPP everything is simply absent.
//
// What is ours in VPP: interfaces by their tag, static neighbours on them,
// routes by their FIB source, and every SRv6 object within Options.Locator:
// local SIDs by their address, policies by their binding SID, steering by its
// policy's binding SID. VPP keeps no other sign of who made these. The agent
// gives the whole SID block as Options.Locator, so on its node the block is
// Sidewinder's: an SRv6 object in it that it did not make, under whichever
// node ID, is removed. Objects of others belong outside the block.
package vpp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// Drivers by which VPP shares a kernel link.
const (
	// DriverAFPacket: a packet socket; the kernel sees each frame as well.
	DriverAFPacket = "af_packet"
	// DriverAFXDP: an AF_XDP socket; all frames go to VPP alone.
	DriverAFXDP = "af_xdp"
)

// Options are what a Backend needs to know.
type Options struct {
	// Socket is the path of VPP's API socket.
	Socket string
	// Locator bounds what is ours: all SRv6 objects within it, whoever made
	// them. The whole SID block, a /32 (the agent: what it left under a locator
	// that it held earlier goes too), or one node's locator, a /48.
	Locator netip.Prefix
	// UplinkDriver, default af_packet; PodDriver, default af_xdp.
	UplinkDriver string
	PodDriver    string
	// Shim is the path of the XDP shim's object, which VPP loads on the links
	// that it has by af_xdp; it is written there where it is missing or another.
	// Empty: a program of VPP's own, which gives all frames to VPP.
	Shim string
	// BeforeStall, where set, is called before VPP is asked for something for
	// which it stops forwarding (tens of milliseconds for each interface by
	// AF_XDP that comes or goes), once at most in each Apply: the moment to let
	// the kernel have the traffic, if VPP has it.
	BeforeStall func()
	// DialTimeout bounds the attempt to connect at the start of a call.
	// Default 1 s.
	DialTimeout time.Duration
	Log         *logrus.Entry
}

// Backend implements dataplane.Backend.
type Backend struct {
	opts Options
	log  *logrus.Entry

	mu   sync.Mutex // one Dump or Apply at a time
	link connector
	// dumped is the connection of the last Dump, nil before the first.
	dumped *binapi.Conn
	// links are for Watch alone.
	links links
}

var _ dataplane.Backend = (*Backend)(nil)

// New checks the options and connects. A VPP that is not there yet is no
// error: each later call tries to connect again. One that lacks the messages
// needed is (*binapi.IncompatibleError).
func New(ctx context.Context, o Options) (*Backend, error) {
	if o.UplinkDriver == "" {
		o.UplinkDriver = DriverAFPacket
	}
	if o.PodDriver == "" {
		o.PodDriver = DriverAFXDP
	}
	if o.DialTimeout <= 0 {
		o.DialTimeout = time.Second
	}
	if o.PodDriver == DriverTap {
		return nil, fmt.Errorf("vpp backend: PodDriver: %q: %w", o.PodDriver, refuseTap(vhostNet))
	}
	for _, f := range []struct {
		field, driver string
		role          dataplane.InterfaceRole
	}{{"UplinkDriver", o.UplinkDriver, dataplane.RoleUplink}, {"PodDriver", o.PodDriver, dataplane.RolePod}} {
		if names := driverNames(f.role); !slices.Contains(names, f.driver) {
			return nil, fmt.Errorf("vpp backend: %s: %q is not one of %q", f.field, f.driver, names)
		}
	}
	if o.Socket == "" {
		return nil, errors.New("vpp backend: Socket: no path given")
	}
	if !o.Locator.IsValid() || o.Locator.Bits() < 32 || o.Locator.Bits() > binapi.UNPrefixBits || !o.Locator.Addr().Is6() || o.Locator != o.Locator.Masked() {
		return nil, fmt.Errorf("vpp backend: Locator: %s is not an IPv6 prefix of 32 to %d bits without bits beyond it (F3216)", o.Locator, binapi.UNPrefixBits)
	}
	if o.Log == nil {
		return nil, errors.New("vpp backend: Log: none given")
	}
	b := &Backend{opts: o, log: o.Log}
	b.link = connector{timeout: o.DialTimeout, log: o.Log, dial: func(ctx context.Context) (*binapi.Conn, error) {
		return binapi.Dial(ctx, binapi.Options{Socket: o.Socket, Require: b.groups(), Log: o.Log})
	}}
	var inc *binapi.IncompatibleError
	if _, err := b.connect(ctx); errors.As(err, &inc) {
		return nil, fmt.Errorf("vpp backend: %w", err)
	} else if err != nil {
		b.log.WithError(err).Info("VPP is not reachable yet")
	}
	return b, nil
}

func (b *Backend) connect(ctx context.Context) (*binapi.Conn, error) { return b.link.get(ctx) }

// groups of messages that the drivers need.
func (b *Backend) groups() []binapi.Group {
	var g []binapi.Group
	for _, role := range []dataplane.InterfaceRole{dataplane.RoleUplink, dataplane.RolePod} {
		if d, err := b.driverFor(role); err == nil {
			g = append(g, d.group())
		}
	}
	return g
}

// Version is VPP's own version text, of the last one that was connected; empty
// before the first. It never waits.
func (b *Backend) Version() string { return b.link.lastVersion() }

// Watch keeps the connection up until ctx ends, and signals whenever it came up
// or went down, or the kernel changed a link that VPP has, so that the caller can
// compare states at once instead of at its next turn. Signals that nobody has
// taken are merged. It is to be called in the network namespace of the links.
func (b *Backend) Watch(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	signal := func() {
		select {
		case out <- struct{}{}:
		default:
		}
	}
	var work sync.WaitGroup
	work.Go(func() { b.link.keep(ctx, signal) })
	warn := func(err error) {
		b.log.WithError(err).Warn("changes of links are found at the next comparison only")
	}
	if news, err := subscribe(ctx); err != nil {
		warn(err)
	} else {
		work.Go(func() { b.links.follow(ctx, news, signal, warn) })
	}
	go func() {
		defer close(out)
		work.Wait()
	}()
	return out
}

// Drop breaks the connection that is up, if any, at once: calls that wait for
// VPP end with dataplane.ErrDisconnected, and Watch signals. It is for a VPP
// that is known to hang, which a call finds out by its reply's timeout (10 s)
// alone. The next call connects again, as ever.
func (b *Backend) Drop() { b.link.drop() }

// Close implements dataplane.Backend. It may wait for an attempt to connect
// that is under way, no longer than DialTimeout.
func (b *Backend) Close() error { return b.link.close() }

// lost turns what went wrong with the connection into the caller's terms.
func lost(err error) error {
	if errors.Is(err, binapi.ErrDisconnected) {
		return fmt.Errorf("%w: %w", dataplane.ErrDisconnected, err)
	}
	return err
}

// own reports whether an address is within this node's locator.
func (b *Backend) own(a netip.Addr) bool { return b.opts.Locator.Contains(a) }
