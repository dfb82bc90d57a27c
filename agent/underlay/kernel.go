package underlay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// OwnProtocol is the routing protocol number of the routes that this program
// writes itself: they say nothing about the underlay.
const OwnProtocol = 83

// ErrNoUplink: no interface faces the underlay.
var ErrNoUplink = errors.New("no uplink")

// Options for New.
type Options struct {
	// Uplinks by name; empty: the interfaces of the default IPv6 route, as
	// Settle finds them.
	Uplinks []string
	// Neighbours are looked up, and asked for, only when a dataplane beside
	// the kernel needs them.
	Neighbours bool
	Log        logrus.FieldLogger
}

// Kernel resolves targets in the network namespace of this process.
type Kernel struct {
	o       Options
	changed chan struct{}

	mu      sync.Mutex
	asked   map[dataplane.NeighbourKey]bool
	missing bool
	settled []string // the uplinks found at the start
}

// New makes a Kernel; Run follows changes.
func New(o Options) *Kernel {
	return &Kernel{o: o, changed: make(chan struct{}, 1), asked: map[dataplane.NeighbourKey]bool{}}
}

// Changed gets a value when something may have changed that Resolve depends on.
func (k *Kernel) Changed() <-chan struct{} { return k.changed }

func (k *Kernel) signal() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Resolve reads the kernel's tables once and answers for all targets.
func (k *Kernel) Resolve(targets []Target) (cluster.Underlay, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return cluster.Underlay{}, fmt.Errorf("underlay: listing links: %w", err)
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	routes, err := readRoutes(names)
	if err != nil {
		return cluster.Underlay{}, err
	}
	uplinks, err := k.uplinks(links, routes)
	if err != nil {
		return cluster.Underlay{}, err
	}
	u := cluster.Underlay{Uplinks: uplinks, Routes: resolve(targets, routes, uplinks)}
	if k.o.Neighbours {
		if u.Neighbours, err = k.neighbours(u, links); err != nil {
			return cluster.Underlay{}, err
		}
	}
	return u, nil
}

func (k *Kernel) uplinks(links []netlink.Link, routes []kernelRoute) (map[string]cluster.Uplink, error) {
	want := map[string]bool{}
	k.mu.Lock()
	for _, n := range slices.Concat(k.o.Uplinks, k.settled) {
		want[n] = true
	}
	k.mu.Unlock()
	if len(want) == 0 {
		for _, r := range routes {
			if r.prefix.Bits() == 0 {
				for _, nh := range r.nextHops {
					want[nh.Interface] = true
				}
			}
		}
		if len(want) == 0 {
			return nil, fmt.Errorf("%w: there is no default IPv6 route to tell; name the interfaces in \"uplinks\"", ErrNoUplink)
		}
	}
	out := map[string]cluster.Uplink{}
	for _, l := range links {
		a := l.Attrs()
		if !want[a.Name] {
			continue
		}
		u := cluster.Uplink{Name: a.Name, MTU: uint16(min(a.MTU, 65535)), Index: a.Index, Up: a.Flags&net.FlagUp != 0}
		if len(a.HardwareAddr) == 6 {
			u.MAC = dataplane.MAC(a.HardwareAddr)
		}
		out[a.Name] = u
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: interface %s does not exist; create it, or name another in \"uplinks\" and restart the agent",
			ErrNoUplink, strings.Join(slices.Sorted(maps.Keys(want)), ", "))
	}
	return out, nil
}

// readRoutes lists other programs' IPv6 unicast routes in the main table.
func readRoutes(names map[int]string) ([]kernelRoute, error) {
	list, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("underlay: listing IPv6 routes: %w", err)
	}
	var out []kernelRoute
	for _, r := range list {
		if r.Protocol == OwnProtocol || r.Type != unix.RTN_UNICAST || r.Encap != nil {
			continue
		}
		kr := kernelRoute{prefix: netip.PrefixFrom(netip.IPv6Unspecified(), 0), metric: r.Priority}
		if r.Dst != nil {
			ip, ok := netip.AddrFromSlice(r.Dst.IP.To16())
			ones, _ := r.Dst.Mask.Size()
			if !ok {
				continue
			}
			kr.prefix = netip.PrefixFrom(ip, ones)
		}
		if len(r.MultiPath) == 0 {
			kr.nextHops = append(kr.nextHops, nextHop(names[r.LinkIndex], r.Gw, 0))
		}
		for _, m := range r.MultiPath {
			kr.nextHops = append(kr.nextHops, nextHop(names[m.LinkIndex], m.Gw, m.Hops))
		}
		out = append(out, kr)
	}
	return out, nil
}

// nextHop converts; the kernel's "hops" are the weight less one.
func nextHop(dev string, gw net.IP, hops int) dataplane.NextHop {
	nh := dataplane.NextHop{Interface: dev, Weight: uint8(min(hops, 254) + 1)}
	if a, ok := netip.AddrFromSlice(gw); ok && !a.IsUnspecified() {
		nh.Gateway = a
	}
	return nh
}

// neighbours finds the layer-2 addresses of all next hops, and asks the kernel to
// resolve, and keep resolved, those that it does not know.
func (k *Kernel) neighbours(u cluster.Underlay, links []netlink.Link) (map[dataplane.NeighbourKey]dataplane.MAC, error) {
	const valid = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT | netlink.NUD_NOARP
	index := map[string]int{}
	known := map[dataplane.NeighbourKey]dataplane.MAC{}
	for _, l := range links {
		name := l.Attrs().Name
		if _, ok := u.Uplinks[name]; !ok {
			continue
		}
		index[name] = l.Attrs().Index
		list, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_V6)
		if err != nil {
			return nil, fmt.Errorf("underlay: listing neighbours of %s: %w", name, err)
		}
		for _, n := range list {
			if ip, ok := netip.AddrFromSlice(n.IP.To16()); ok && n.State&valid != 0 && len(n.HardwareAddr) == 6 {
				known[dataplane.NeighbourKey{Interface: name, IP: ip}] = dataplane.MAC(n.HardwareAddr)
			}
		}
	}
	out := map[dataplane.NeighbourKey]dataplane.MAC{}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.missing = false
	for _, r := range u.Routes {
		for _, nh := range r.NextHops {
			key := dataplane.NeighbourKey{Interface: nh.Interface, IP: nh.Gateway}
			mac, ok := known[key]
			if ok {
				out[key] = mac
			} else {
				k.missing = true
			}
			// Ask once even for a known one: without traffic of its own the
			// kernel would forget it.
			if !ok || !k.asked[key] {
				if err := ask(index[nh.Interface], nh.Gateway); err != nil {
					k.o.Log.WithError(err).WithField("neighbour", key.String()).Warn("cannot ask the kernel to resolve a next hop")
				} else {
					k.asked[key] = true
				}
			}
		}
	}
	return out, nil
}

// ask makes the kernel resolve a neighbour and keep it so (NTF_EXT_MANAGED, Linux
// 5.16); an older kernel resolves it once.
func ask(index int, ip netip.Addr) error {
	n := &netlink.Neigh{LinkIndex: index, Family: netlink.FAMILY_V6, IP: ip.AsSlice(), Flags: netlink.NTF_USE, FlagsExt: netlink.NTF_EXT_MANAGED}
	if err := netlink.NeighSet(n); err == nil {
		return nil
	}
	n.FlagsExt = 0
	return netlink.NeighSet(n)
}

// Run follows the kernel's events until ctx ends.
func (k *Kernel) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := k.follow(ctx); err != nil && ctx.Err() == nil {
			// Most likely events were lost (ENOBUFS).
			k.o.Log.WithError(err).Warn("following the kernel's routes was interrupted; starting again")
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

func (k *Kernel) follow(ctx context.Context) error {
	done := make(chan struct{})
	defer close(done)
	// An event that cannot be read still says that something has changed. When
	// events are lost the channel is closed.
	report := func(err error) {
		k.o.Log.WithError(err).Debug("a kernel event could not be read")
		k.signal()
	}
	routes := make(chan netlink.RouteUpdate, 256)
	if err := netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{ErrorCallback: report}); err != nil {
		return fmt.Errorf("underlay: following routes: %w", err)
	}
	links := make(chan netlink.LinkUpdate, 64)
	if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: report}); err != nil {
		return fmt.Errorf("underlay: following links: %w", err)
	}
	neighbours := make(chan netlink.NeighUpdate, 256)
	if err := netlink.NeighSubscribeWithOptions(neighbours, done, netlink.NeighSubscribeOptions{ErrorCallback: report}); err != nil {
		return fmt.Errorf("underlay: following neighbours: %w", err)
	}
	// What changed before the subscriptions were there was not heard.
	k.signal()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, ok := <-routes:
			if !ok {
				return errors.New("the kernel's route events ended")
			}
			if u.Protocol != OwnProtocol && u.Family == netlink.FAMILY_V6 && u.Table == unix.RT_TABLE_MAIN {
				k.signal()
			}
		case _, ok := <-links:
			if !ok {
				return errors.New("the kernel's link events ended")
			}
			k.signal()
		case u, ok := <-neighbours:
			if !ok {
				return errors.New("the kernel's neighbour events ended")
			}
			if k.o.Neighbours && u.Family == netlink.FAMILY_V6 && u.State&netlink.NUD_PERMANENT == 0 {
				k.signal()
			}
		case <-again.C:
			k.mu.Lock()
			missing := k.missing
			k.mu.Unlock()
			if missing {
				k.signal()
			}
		}
	}
}

// Settle finds the uplinks, sorted by name, and keeps to them from then on: a
// default route that goes away or moves does not change what faces the underlay.
func (k *Kernel) Settle() ([]string, error) {
	u, err := k.Resolve(nil)
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(u.Uplinks))
	if len(k.o.Uplinks) > 0 {
		// One that is named and not there yet may still come.
		names = slices.Sorted(slices.Values(k.o.Uplinks))
	}
	k.mu.Lock()
	k.settled = names
	k.mu.Unlock()
	return names, nil
}
