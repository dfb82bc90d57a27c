package switchover

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// Tables are what VPP carries at present.
type Tables struct {
	Uplink, Pods map[netip.Prefix]xdp.Verdict
}

// still are the destinations in want that next has with the same meaning, and
// those that next keeps from VPP.
func still(want, next map[netip.Prefix]dataplane.Redirect) map[netip.Prefix]dataplane.Redirect {
	out := make(map[netip.Prefix]dataplane.Redirect, len(want))
	for p, r := range want {
		if n, ok := next[p]; ok && n.Inner == r.Inner {
			out[p] = r
		}
	}
	for p, n := range next {
		if n.Kernel {
			out[p] = n
		}
	}
	return out
}

// common are the entries of now that next still has, with the same meaning. What
// is kept from VPP stays so, or begins to be: without its entry a larger prefix
// might give it to VPP.
func common(now map[netip.Prefix]xdp.Verdict, next map[netip.Prefix]dataplane.Redirect) map[netip.Prefix]xdp.Verdict {
	out := make(map[netip.Prefix]xdp.Verdict, len(now))
	for p, v := range now {
		if r, ok := next[p]; v == xdp.VerdictKernel || ok && verdict(r) == v {
			out[p] = v
		}
	}
	for p, r := range next {
		if r.Kernel {
			out[p] = xdp.VerdictKernel
		}
	}
	return out
}

func verdict(r dataplane.Redirect) xdp.Verdict {
	switch {
	case r.Kernel:
		return xdp.VerdictKernel
	case r.Inner:
		return xdp.VerdictVPPInner
	}
	return xdp.VerdictVPP
}

// fill puts into the table what VPP can carry; the rest is withheld, sorted, and
// kept from VPP also where a larger prefix is VPP's.
func fill(table map[netip.Prefix]xdp.Verdict, want map[netip.Prefix]dataplane.Redirect, unmet map[dataplane.Key]error) []status.Object {
	var withheld []status.Object
next:
	for p, r := range want {
		if len(unmet) > 0 {
			for _, k := range r.Needs {
				if err, bad := unmet[k]; bad {
					withheld = append(withheld, status.Object{Key: p.String(), Reason: fmt.Sprintf("%s: %v", k, err)})
					table[p] = xdp.VerdictKernel
					continue next
				}
			}
		}
		table[p] = verdict(r)
	}
	slices.SortFunc(withheld, func(a, b status.Object) int { return strings.Compare(a.Key, b.Key) })
	return withheld
}
