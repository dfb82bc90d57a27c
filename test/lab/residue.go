package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/test/lab/ns"
)

// Departed is what a node had that others must not have any more.
type Departed struct {
	Locator  netip.Prefix
	PodCIDRs []netip.Prefix
}

// Residue looks on a node for anything that still leads to a node that left. It
// reads the kernel and VPP themselves, not what the agent says; nothing found
// gives nil.
func (n *Node) Residue(ctx context.Context, d Departed) ([]string, error) {
	found, err := n.kernelResidue(d)
	if err != nil {
		return nil, err
	}
	if n.Dataplane != config.DataplaneVPP || !n.RunsVPP() {
		return found, nil
	}
	for _, command := range []string{
		"show sr policies", "show sr steering-policies", "show sr localsids", "show ip fib", "show ip6 fib",
	} {
		out, err := n.VPPShow(ctx, command)
		if err != nil {
			return nil, err
		}
		for _, line := range strings.Split(out, "\n") {
			if d.in(line) {
				found = append(found, fmt.Sprintf("VPP, %s: %s", command, strings.TrimSpace(line)))
			}
		}
	}
	return found, nil
}

// in reports whether a line of text names an address of the node that left.
func (d Departed) in(line string) bool {
	for _, a := range addressesIn(line) {
		if d.Locator.Contains(a) {
			return true
		}
		for _, p := range d.PodCIDRs {
			if p.Contains(a) {
				return true
			}
		}
	}
	return false
}

// addressesIn are the IP addresses in a text, of prefixes their address part.
func addressesIn(text string) []netip.Addr {
	var out []netip.Addr
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n,;<>[](){}/", r) }) {
		if a, err := netip.ParseAddr(strings.TrimRight(word, ".:")); err == nil {
			out = append(out, a)
		} else if a, err := netip.ParseAddr(word); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// kernelResidue searches every table's routes and the next hop objects.
func (n *Node) kernelResidue(d Departed) ([]string, error) {
	var found []string
	err := ns.Do(n.Name, func() error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return fmt.Errorf("%s: list routes: %w", n.Name, err)
			}
			for _, r := range routes {
				if r.Dst != nil && d.overlaps(r.Dst.String()) {
					found = append(found, "kernel route: "+r.String())
				}
			}
		}
		// Segments are inside encapsulation attributes of several layouts: the
		// locator's bytes are looked for in the raw messages.
		raw, bits := d.Locator.Addr().As16(), d.Locator.Bits()
		for what, kind := range map[string]int{"route": unix.RTM_GETROUTE, "next hop": unix.RTM_GETNEXTHOP} {
			req := nl.NewNetlinkRequest(kind, unix.NLM_F_DUMP)
			if kind == unix.RTM_GETROUTE {
				req.AddData(nl.NewRtMsg())
			} else {
				req.AddData(&nexthopMsg{})
			}
			msgs, err := req.Execute(unix.NETLINK_ROUTE, 0)
			if err != nil {
				return fmt.Errorf("%s: dump %ss: %w", n.Name, what, err)
			}
			for _, m := range msgs {
				if bytes.Contains(m, raw[:bits/8]) {
					found = append(found, fmt.Sprintf("kernel %s that holds locator %s (%d bytes)", what, d.Locator, len(m)))
				}
			}
		}
		return nil
	})
	return found, err
}

// nexthopMsg is struct nhmsg, all zero: every next hop of every family.
type nexthopMsg struct{}

// Len implements nl.NetlinkRequestData.
func (nexthopMsg) Len() int { return 8 }

// Serialize implements nl.NetlinkRequestData.
func (nexthopMsg) Serialize() []byte { return make([]byte, 8) }

// overlaps reports whether a route leads into the prefixes of the node that
// left; wider routes (a default route, a whole pool) do not count.
func (d Departed) overlaps(dst string) bool {
	p, err := netip.ParsePrefix(dst)
	if err != nil {
		return false
	}
	for _, q := range append([]netip.Prefix{d.Locator}, d.PodCIDRs...) {
		if q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
			return true
		}
	}
	return false
}
