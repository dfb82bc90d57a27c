package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// Marks by which this program's kernel objects are known.
const (
	// Protocol is the origin of routes, nexthops, addresses and neighbours.
	Protocol = 83
	// NexthopIDFirst and NexthopIDLast bound the nexthop ids.
	NexthopIDFirst uint32 = 0x53570000
	NexthopIDLast  uint32 = 0x5357FFFF
	// PodAlias is the alias of the host's end of a pod's veth.
	PodAlias = "sidewinder:pod"
)

// Metrics of the routes, by what they are (see the package's documentation).
const (
	metricLocalSID = 80
	metricBSID     = 81
	metricSteering = 82
	metricRoute    = 83
)

// ErrConflict: a kernel object that is not ours holds the place of one of ours.
// It is left as it is; the change can be tried again.
var ErrConflict = errors.New("held by an object that is not ours")

// Options configure New.
type Options struct {
	// Uplinks name the interfaces that face the underlay. Local SIDs are bound
	// to the first; the smallest MTU of them bounds the steered packets. They
	// need not exist yet, but local SIDs wait for the first. They are fixed for
	// the life of the Backend: an uplink that is not among them is refused.
	Uplinks []string
	// Log; nil discards.
	Log logrus.FieldLogger
}

// Backend keeps dataplane objects in the Linux kernel. Its methods may be called
// from any goroutine.
type Backend struct {
	uplinks []string
	log     logrus.FieldLogger
	thread  *thread
	conn    *conn
	release string
	// maxWeight is the largest weight of a member of a nexthop group.
	maxWeight uint32

	mu sync.Mutex
	// loaded: index and own reflect a dump and what was done since.
	loaded bool
	index  *policyIndex
	// own are the slots in the route tables that are known to be ours.
	own map[slot]struct{}
	// asked are the values that the kernel holds in another form.
	asked map[dataplane.Key]asked
	// released are uplinks that were deleted from the state.
	released map[string]bool
	// noFlowLabel: the flow label mode "none" was asked for.
	noFlowLabel bool
	// hooksRefused: sysctlHooks could not be written, and that was told.
	hooksRefused bool

	// watched are the names of the interfaces that Apply was asked for.
	watchMu sync.Mutex
	watched map[string]bool
}

// asked is a value as the caller gave it and in the form that a dump yields.
type asked struct{ want, held dataplane.Value }

// New opens a backend on the network namespace of the calling thread. The error
// is dataplane.ErrUnsupported, with the reason, where the kernel lacks what is
// needed. Nothing in the kernel is changed.
func New(o Options) (*Backend, error) {
	if o.Log == nil {
		l := logrus.New()
		l.SetLevel(logrus.PanicLevel)
		o.Log = l
	}
	release, major, minor, err := kernelRelease()
	if err != nil {
		return nil, err
	}
	if major < 6 || major == 6 && minor < 1 {
		return nil, fmt.Errorf("Linux kernel %s: SRv6 with reduced encapsulation and NEXT-C-SID needs 6.1 or newer: %w", release, dataplane.ErrUnsupported)
	}
	b := &Backend{
		uplinks: slices.Clone(o.Uplinks), log: o.Log, release: release,
		maxWeight: 255,
		index:     newPolicyIndex(), own: map[slot]struct{}{},
		asked: map[dataplane.Key]asked{}, released: map[string]bool{}, watched: map[string]bool{},
	}
	if major > 6 || minor >= 12 {
		b.maxWeight = 65535
	}
	for _, u := range o.Uplinks {
		b.watched[u] = true
	}
	if b.thread, err = newThread(); err != nil {
		return nil, err
	}
	if err := b.open(); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Backend) open() error {
	err := b.thread.do(func() (err error) {
		if b.conn, err = newConn(); err != nil {
			return err
		}
		_, err = readSysctl(sysctlFlowLabel)
		return err
	})
	if err != nil {
		return fmt.Errorf("Linux dataplane: %w", err)
	}
	return b.conn.probe()
}

// Version is the kernel's release.
func (b *Backend) Version() string { return b.release }

// Close releases the sockets and the thread; the kernel's objects stay.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil {
		b.conn.close()
		b.conn = nil
	}
	b.thread.close()
	return nil
}

func (b *Backend) closed() error {
	if b.conn == nil {
		return fmt.Errorf("Linux dataplane is closed: %w", dataplane.ErrDisconnected)
	}
	return nil
}

// Apply implements dataplane.Backend. When ctx ends, its error is in the result,
// once, beside the failures of what was tried; the rest is not tried.
func (b *Backend) Apply(ctx context.Context, changes []dataplane.Change) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.closed(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(changes) == 0 {
		return nil
	}
	if !b.loaded {
		if _, err := b.read(ctx); err != nil {
			return err
		}
	}
	links, err := b.conn.links()
	if err != nil {
		return err
	}
	tx := &tx{Backend: b, ctx: ctx, links: links, podMTU: b.uplinkMTU(links), resteer: map[netip.Addr]bool{}}
	if err := tx.prepareLoopback(changes); err != nil {
		return err
	}
	var errs []error
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			// What finish would do, the next Dump finds to be undone.
			return errors.Join(append(errs, err)...)
		}
		if err := tx.apply(c); err != nil {
			errs = append(errs, &dataplane.KeyError{Op: c.Op, Key: c.Key, Err: err})
		}
	}
	errs = append(errs, tx.finish()...)
	return errors.Join(errs...)
}

// tx is one call of Apply: what it knows of the links, and what is left for its
// end.
type tx struct {
	*Backend
	ctx   context.Context
	links *linkTable
	// podMTU is the smallest MTU of the uplinks, 0 when none exists.
	podMTU uint32
	// resteer are the policies whose steering routes need another MTU.
	resteer map[netip.Addr]bool
	// foreign are the slots held by others, by family and table, read at most
	// once.
	foreign map[tableID]map[slot]int
	// users are steerings by the nexthop group that they lead to, one of each
	// group; nil until they are read, and again when one has changed.
	users map[uint32]dataplane.SteeringKey
	// waited is the time spent on waiting for the kernel's memory.
	waited time.Duration
}

func (t *tx) apply(c dataplane.Change) error {
	del := c.Op == dataplane.OpDelete
	if !del && c.New == nil {
		return errors.New("the change has no value")
	}
	err := func() error {
		switch k := c.Key.(type) {
		case dataplane.SettingKey:
			if del {
				return t.deleteSetting(k)
			}
			return withValue(c, func(v dataplane.Setting) error { return t.setSetting(k, v) })
		case dataplane.InterfaceKey:
			if del {
				return t.deleteInterface(string(k))
			}
			return withValue(c, func(v dataplane.Interface) error { return t.setInterface(string(k), v) })
		case dataplane.AddressKey:
			if del {
				return t.deleteAddress(k)
			}
			return t.setAddress(k)
		case dataplane.NeighbourKey:
			if del {
				return t.deleteNeighbour(k)
			}
			return withValue(c, func(v dataplane.Neighbour) error { return t.setNeighbour(k, v) })
		case dataplane.RouteKey:
			if del {
				return t.deleteRoute(slot{k.Prefix, tableOrMain(k.Table), metricRoute})
			}
			return withValue(c, func(v dataplane.Route) error { return t.setRoute(k, v) })
		case dataplane.LocalSIDKey:
			if del {
				return t.deleteRoute(slot{k.SID, unix.RT_TABLE_MAIN, metricLocalSID})
			}
			return withValue(c, func(v dataplane.LocalSID) error { return t.setLocalSID(k, v) })
		case dataplane.PolicyKey:
			if del {
				return t.deletePolicy(k.BSID)
			}
			return withValue(c, func(v dataplane.Policy) error { return t.setPolicy(k, v) })
		case dataplane.SteeringKey:
			if del {
				return t.deleteSteering(k)
			}
			return withValue(c, func(v dataplane.Steering) error { return t.setSteering(k, v) })
		}
		return fmt.Errorf("objects of type %T: %w", c.Key, dataplane.ErrUnsupported)
	}()
	if del && err == nil {
		delete(t.asked, c.Key)
	}
	return err
}

// withValue gives f the change's value when it is of the key's kind.
func withValue[V dataplane.Value](c dataplane.Change, f func(V) error) error {
	v, ok := c.New.(V)
	if !ok {
		return fmt.Errorf("value of type %T does not belong to a %s", c.New, c.Key.Kind())
	}
	return f(v)
}

// remember notes the form in which a dump will yield want.
func (b *Backend) remember(k dataplane.Key, want, held dataplane.Value) {
	if want.Equal(held) {
		delete(b.asked, k)
		return
	}
	b.asked[k] = asked{want, held}
}

// finish does what concerns several changes at once.
func (t *tx) finish() []error {
	errs := t.resteerPolicies()
	t.collectGarbage()
	return errs
}

func tableOrMain(table uint32) uint32 {
	if table == 0 {
		return unix.RT_TABLE_MAIN
	}
	return table
}

func mainAsZero(table uint32) uint32 {
	if table == unix.RT_TABLE_MAIN {
		return 0
	}
	return table
}
