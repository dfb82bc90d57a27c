package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/status"
)

// CompareVPP holds a node's status against what VPP itself shows, both ways:
// every policy, steering entry and local SID of the status is in VPP, and VPP
// has no policy beyond them.
func (n *Node) CompareVPP(ctx context.Context, s status.Status) error {
	policies, err := n.VPPShow(ctx, "show sr policies")
	if err != nil {
		return err
	}
	steering, err := n.VPPShow(ctx, "show sr steering-policies")
	if err != nil {
		return err
	}
	localSIDs, err := n.VPPShow(ctx, "show sr localsids")
	if err != nil {
		return err
	}
	return errors.Join(
		comparePolicies(n.Name, s.Policies, policies),
		compareSteering(n.Name, s.Policies, steering),
		compareSIDs(n.Name, s.SIDs, localSIDs))
}

func comparePolicies(node string, want []status.Policy, shown string) error {
	var errs []error
	have := addressSet(shown)
	for _, p := range want {
		if !have.has(p.BSID) {
			errs = append(errs, fmt.Errorf("%s: show sr policies: BSID %s is missing", node, p.BSID))
		}
		for _, list := range p.Lists {
			for _, segment := range addressesIn(list) {
				if !have[segment] {
					errs = append(errs, fmt.Errorf("%s: show sr policies: segment %s of BSID %s is missing", node, segment, p.BSID))
				}
			}
		}
	}
	if n := strings.Count(shown, "BSID:"); n != len(want) {
		errs = append(errs, fmt.Errorf("%s: show sr policies: %d policies, the status has %d", node, n, len(want)))
	}
	return errors.Join(errs...)
}

// compareSteering wants prefix and BSID on one line of VPP's table.
func compareSteering(node string, want []status.Policy, shown string) error {
	var errs []error
	for _, p := range want {
		for _, prefix := range p.Prefixes {
			if !steeringLine(shown, prefix, p.BSID) {
				errs = append(errs, fmt.Errorf("%s: show sr steering-policies: %s into BSID %s is missing", node, prefix, p.BSID))
			}
		}
	}
	return errors.Join(errs...)
}

func steeringLine(shown, prefix, bsid string) bool {
	for _, line := range strings.Split(shown, "\n") {
		if !strings.Contains(line, prefix) {
			continue
		}
		if set := addressSet(strings.ReplaceAll(line, prefix, "")); set.has(bsid) {
			return true
		}
	}
	return false
}

func compareSIDs(node string, want []status.SID, shown string) error {
	var errs []error
	have := addressSet(shown)
	for _, s := range want {
		address, _, _ := strings.Cut(s.SID, "/")
		if !have.has(address) {
			errs = append(errs, fmt.Errorf("%s: show sr localsids: %s (%s) is missing", node, s.SID, s.Behaviour))
		}
	}
	return errors.Join(errs...)
}

// VPPCarried gives how many packets VPP itself has decapsulated, by local SID.
func (n *Node) VPPCarried(ctx context.Context) (map[netip.Addr]uint64, error) {
	shown, err := n.VPPShow(ctx, "show sr localsids")
	if err != nil {
		return nil, err
	}
	return goodTraffic(shown), nil
}

// goodTraffic reads the counters of `show sr localsids`.
func goodTraffic(shown string) map[netip.Addr]uint64 {
	out := map[netip.Addr]uint64{}
	var sid netip.Addr
	for _, line := range strings.Split(shown, "\n") {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "Address":
			sid = netip.Addr{}
			if found := addressesIn(value); len(found) == 1 {
				sid = found[0]
			}
		case "Good traffic":
			var packets uint64
			if _, err := fmt.Sscanf(strings.TrimSpace(value), "[%d packets", &packets); err == nil && sid.IsValid() {
				out[sid] = packets
			}
		}
	}
	return out
}

type addresses map[netip.Addr]bool

func addressSet(text string) addresses {
	set := addresses{}
	for _, a := range addressesIn(text) {
		set[a] = true
	}
	return set
}

func (s addresses) has(text string) bool {
	a, err := netip.ParseAddr(text)
	return err == nil && s[a]
}
