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
// on to the host: the kernel is the complete path. So does what it is to drop, such
// as the rest of the node's pod prefixes: the kernel drops what it has no pod for.

// fallbackSource is the FIB source of the routes to the host; its priority is
// below everybody's, so that any other route to the same prefix is preferred.
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

// halves of a prefix: more specific than a route to the whole, and less than any
// other within. A single address has none.
func halves(p netip.Prefix) []netip.Prefix {
	if p.IsSingleIP() {
		return nil
	}
	upper := p.Addr().AsSlice()
	upper[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	a, _ := netip.AddrFromSlice(upper) // of the length that it came with
	return []netip.Prefix{netip.PrefixFrom(p.Addr(), p.Bits()+1), netip.PrefixFrom(a, p.Bits()+1)}
}

// fallback is where packets to the host go, and which beside all others.
type fallback struct {
	host  binapi.Index
	mac   binapi.MAC
	drops []netip.Prefix
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
			return fallback{host: s.Host.Index, mac: h.MAC}, true
		}
	}
	return fallback{}, false
}

// routes to the host.
func (f fallback) routes(source uint8) []binapi.Route {
	var out []binapi.Route
	for _, gw := range fallbackGateways() {
		prefixes := []netip.Prefix{defaultRoute(gw)}
		for _, d := range f.drops {
			if d.Addr().Is4() == gw.Is4() {
				prefixes = append(prefixes, halves(d)...)
			}
		}
		for _, p := range prefixes {
			out = append(out, binapi.Route{Prefix: p, Source: source, Paths: []binapi.Path{{Interface: f.host, Gateway: gw, Weight: 1}}})
		}
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

// fallbackDiff is what VPP's routes to the host lack. source 0: the FIB source
// is yet to be made.
type fallbackDiff struct {
	source  uint8
	stale   []binapi.Route
	missing bool
}

func (d fallbackDiff) none() bool { return len(d.stale) == 0 && !d.missing }

// compareFallback compares VPP with what is wanted; nil: nothing. It completes
// want with what VPP is to drop.
func compareFallback(ctx context.Context, c *binapi.Conn, want *fallback) (d fallbackDiff, err error) {
	var sources []binapi.FIBSource
	if err := do(ctx, c, binapi.FIBSources(&sources)); err != nil {
		return d, err
	}
	if ours, ok := findSource(sources); ok && want != nil {
		var routes []binapi.Route
		if err := do(ctx, c, binapi.Routes(0, false, ours, &routes), binapi.Routes(0, true, ours, &routes)); err != nil {
			return d, err
		}
		for _, r := range routes {
			if len(r.Paths) == 0 && !r.Foreign {
				want.drops = append(want.drops, r.Prefix)
			}
		}
	}
	source, ok := sourceByName(sources, fallbackSource)
	if !ok {
		d.missing = want != nil
		return d, nil
	}
	d.source = source
	var have []binapi.Route
	var neighbours []binapi.Neighbour
	if err := do(ctx, c, binapi.Routes(0, false, source, &have), binapi.Routes(0, true, source, &have),
		binapi.Neighbours(false, &neighbours), binapi.Neighbours(true, &neighbours)); err != nil {
		return d, err
	}
	var wanted []binapi.Route
	if want != nil {
		wanted = want.routes(source)
		for _, n := range want.neighbours() {
			d.missing = d.missing || !slices.Contains(neighbours, n)
		}
	}
	// VPP tells the paths that are in force: those of another source hide ours.
	is := func(h, w binapi.Route) bool {
		return h.Prefix == w.Prefix && (h.Source != source || slices.Equal(h.Paths, w.Paths))
	}
	for _, w := range wanted {
		d.missing = d.missing || !slices.ContainsFunc(have, func(h binapi.Route) bool { return is(h, w) })
	}
	for _, h := range have {
		if !slices.ContainsFunc(wanted, func(w binapi.Route) bool { return w.Prefix == h.Prefix }) {
			d.stale = append(d.stale, binapi.Route{Prefix: h.Prefix, Source: source})
		}
	}
	return d, nil
}

// setFallback brings VPP's routes to the host in line.
func (a *applier) setFallback(interfaces []binapi.Interface) error {
	var want *fallback
	if f, ok := a.wantedFallback(a.view, interfaces); ok {
		want = &f
	}
	d, err := compareFallback(a.ctx, a.c, want)
	if err != nil || d.none() {
		return err
	}
	var calls []*binapi.Call
	if d.missing {
		if d.source == 0 {
			if d.source, err = a.sourceOf(fallbackSource, fallbackPriority); err != nil {
				return err
			}
		}
		for _, n := range want.neighbours() {
			calls = append(calls, binapi.NeighbourAdd(n))
		}
		for _, r := range want.routes(d.source) {
			calls = append(calls, binapi.RouteReplace(r))
		}
	}
	for _, r := range d.stale {
		calls = append(calls, binapi.RouteDel(r))
	}
	return do(a.ctx, a.c, calls...)
}
