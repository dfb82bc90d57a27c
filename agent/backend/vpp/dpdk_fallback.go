package vpp

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/sidewinder-net/sidewinder/binapi"
)

// With a NIC of its own VPP gets every packet to the node's SIDs, also those for
// pods that it does not hold. What it has no route for after decapsulation goes
// on to the host: the kernel is the complete path.

// fallbackSource is the FIB source of the default routes to the host; its
// priority is below everybody's, so that any other route is preferred.
const (
	fallbackSource   = "sidewinder-host"
	fallbackPriority = 0xf0
)

// fallbackGateways stand for the host on VPP's side of its veth. They are in no
// packet; both are link-local (RFC 3927, RFC 4291 §2.5.6).
func fallbackGateways() []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{169, 254, 83, 1}), netip.MustParseAddr("fe80::5357")}
}

func defaultRoute(gw netip.Addr) netip.Prefix {
	if gw.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// fallback is where packets to the host go.
type fallback struct {
	host binapi.Index
	mac  binapi.MAC
}

// wantedFallback leads over the first uplink in use that has a wire. False:
// there is none.
func (b *Backend) wantedFallback(v *view, interfaces []binapi.Interface) (fallback, bool) {
	up := uplinksOf(v)
	slices.SortFunc(up, func(x, y held) int { return strings.Compare(x.tag.name, y.tag.name) })
	for _, h := range up {
		w, err := b.wireOf(h.tag.name)
		if err != nil {
			continue // said where the uplink is set up
		}
		if s := w.State(interfaces, nil); s.Host.Index != binapi.NoInterface {
			return fallback{s.Host.Index, h.MAC}, true
		}
	}
	return fallback{}, false
}

// routes to the host.
func (f fallback) routes(source uint8) []binapi.Route {
	var out []binapi.Route
	for _, gw := range fallbackGateways() {
		out = append(out, binapi.Route{Prefix: defaultRoute(gw), Source: source, Paths: []binapi.Path{{Interface: f.host, Gateway: gw, Weight: 1}}})
	}
	return out
}

func (f fallback) neighbours() []binapi.Neighbour {
	var out []binapi.Neighbour
	for _, gw := range fallbackGateways() {
		out = append(out, binapi.Neighbour{Interface: f.host, IP: gw, MAC: f.mac, Static: true})
	}
	return out
}

// fallbackIs reports whether VPP has exactly these default routes; nil: none.
func fallbackIs(ctx context.Context, c *binapi.Conn, want *fallback) (bool, error) {
	var sources []binapi.FIBSource
	if err := do(ctx, c, binapi.FIBSources(&sources)); err != nil {
		return false, err
	}
	source, ok := sourceByName(sources, fallbackSource)
	if !ok {
		return want == nil, nil
	}
	var have []binapi.Route
	var neighbours []binapi.Neighbour
	if err := do(ctx, c, binapi.Routes(0, false, source, &have), binapi.Routes(0, true, source, &have),
		binapi.Neighbours(false, &neighbours), binapi.Neighbours(true, &neighbours)); err != nil {
		return false, err
	}
	if want == nil {
		return len(have) == 0, nil
	}
	for _, n := range want.neighbours() {
		if !slices.Contains(neighbours, n) {
			return false, nil
		}
	}
	return slices.EqualFunc(have, want.routes(source), func(x, y binapi.Route) bool {
		return x.Prefix == y.Prefix && slices.Equal(x.Paths, y.Paths)
	}), nil
}

// setFallback brings VPP's default routes in line.
func (a *applier) setFallback(interfaces []binapi.Interface) error {
	var want *fallback
	if f, ok := a.wantedFallback(a.view, interfaces); ok {
		want = &f
	}
	if is, err := fallbackIs(a.ctx, a.c, want); is || err != nil {
		return err
	}
	source, err := a.sourceOf(fallbackSource, fallbackPriority)
	if err != nil {
		return err
	}
	var calls []*binapi.Call
	if want == nil {
		for _, r := range (fallback{}).routes(source) {
			calls = append(calls, binapi.RouteDel(r))
		}
		return do(a.ctx, a.c, calls...)
	}
	for _, n := range want.neighbours() {
		calls = append(calls, binapi.NeighbourAdd(n))
	}
	for _, r := range want.routes(source) {
		calls = append(calls, binapi.RouteReplace(r))
	}
	return do(a.ctx, a.c, calls...)
}
