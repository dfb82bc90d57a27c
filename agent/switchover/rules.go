package switchover

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// What Rules keeps in the kernel. The metric is none of those that the kernel
// dataplane uses for its own routes, so neither takes the other's for its own.
const (
	protocol      = 83
	ruleMetric    = 84
	rulePriority  = 8383
	uplinkTableID = 0x5358
	podTableID    = 0x5359
)

// Rules is the Carrier on links that VPP reads through packet sockets: the
// kernel gets each frame as well, so it must drop its copies of what VPP
// carries. Policy rules lead packets from these links through a table with
// blackhole routes; giving the traffic to the kernel is to remove the rules.
type Rules struct {
	uplinks, pods bool
	open          map[string]int // link name: table
}

// NewRules makes a carrier for af_packet uplinks, pods, or both.
func NewRules(uplinks, pods bool) *Rules {
	return &Rules{uplinks: uplinks, pods: pods, open: map[string]int{}}
}

// Set implements Carrier.
func (r *Rules) Set(t Tables) error {
	var errs []error
	if r.uplinks {
		errs = append(errs, program(uplinkTableID, t.Uplink))
	}
	if r.pods {
		errs = append(errs, program(podTableID, t.Pods))
	}
	return errors.Join(errs...)
}

// program makes a table hold exactly these, new ones first.
func program(table int, want map[netip.Prefix]xdp.Verdict) error {
	have := map[netip.Prefix]int{}
	filter := &netlink.Route{Table: table, Protocol: protocol}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("routes of table %d: %w", table, err)
	}
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		a, ok := netip.AddrFromSlice(route.Dst.IP)
		bits, _ := route.Dst.Mask.Size()
		if ok {
			have[netip.PrefixFrom(a.Unmap(), bits)] = route.Type
		}
	}
	var errs []error
	for p, v := range want {
		if have[p] != typeOf(v) {
			if err := netlink.RouteReplace(routeTo(table, p, typeOf(v))); err != nil {
				errs = append(errs, fmt.Errorf("route %s table %d: %w", p, table, err))
			}
		}
	}
	for p, t := range have {
		if _, wanted := want[p]; !wanted {
			if err := netlink.RouteDel(routeTo(table, p, t)); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("removing route %s table %d: %w", p, table, err))
			}
		}
	}
	return errors.Join(errs...)
}

// typeOf is the route that does with the kernel's copy what the verdict says:
// drops it, or goes on to the next rule.
func typeOf(v xdp.Verdict) int {
	if v == xdp.VerdictKernel {
		return unix.RTN_THROW
	}
	return unix.RTN_BLACKHOLE
}

func routeTo(table int, p netip.Prefix, kind int) *netlink.Route {
	return &netlink.Route{
		Dst:   &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		Table: table, Protocol: protocol, Priority: ruleMetric, Type: kind,
	}
}

// Bind implements Carrier: there is nothing to watch.
func (r *Rules) Bind(Links) {}

// Open implements Carrier.
func (r *Rules) Open(l Links) map[string]error {
	want := map[string]int{}
	for _, name := range l.Pods {
		want[name] = podTableID
	}
	for _, name := range l.Uplinks {
		want[name] = uplinkTableID
	}
	errs := map[string]error{}
	have, err := rules()
	if err != nil {
		for name := range want {
			errs[name] = err
		}
		return errs
	}
	for name, table := range want {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			k := ruleKey{name, table, family}
			if have[k] {
				continue
			}
			if err := netlink.RuleAdd(k.rule()); err != nil && !errors.Is(err, unix.EEXIST) {
				errs[name] = fmt.Errorf("rule that keeps the kernel from carrying what VPP carries: %w", err)
			}
		}
	}
	for k := range have {
		if want[k.link] != k.table {
			if err := k.remove(); err != nil {
				errs[k.link] = err
			}
		}
	}
	r.open = want
	return errs
}

// Shut implements Carrier.
func (r *Rules) Shut() error {
	have, err := rules()
	if err != nil {
		return err
	}
	var errs []error
	for k := range have {
		if k.table == uplinkTableID && r.uplinks || k.table == podTableID && r.pods {
			errs = append(errs, k.remove())
		}
	}
	r.open = map[string]int{}
	return errors.Join(errs...)
}

// RemoveRules removes the rules of every kind of link, and then what their tables
// hold: for an agent that uses none, after one that did.
func RemoveRules() error {
	r := NewRules(true, true)
	return errors.Join(r.Shut(), r.Set(Tables{}))
}

// Links implements Carrier.
func (r *Rules) Links() []status.Link {
	var out []status.Link
	for _, name := range slices.Sorted(maps.Keys(r.open)) {
		out = append(out, status.Link{Name: name, Mode: xdp.ModeVPP.String()})
	}
	return out
}

// Close implements Carrier.
func (r *Rules) Close() error { return nil }

// ruleKey is one of our rules.
type ruleKey struct {
	link          string
	table, family int
}

func (k ruleKey) rule() *netlink.Rule {
	r := netlink.NewRule()
	r.IifName, r.Table, r.Family, r.Priority, r.Protocol = k.link, k.table, k.family, rulePriority, protocol
	return r
}

func (k ruleKey) remove() error {
	if err := netlink.RuleDel(k.rule()); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("removing the rule for packets from %s: %w", k.link, err)
	}
	return nil
}

// rules are ours, whoever's instance made them.
func rules() (map[ruleKey]bool, error) {
	out := map[ruleKey]bool{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := netlink.RuleList(family)
		if err != nil {
			return nil, fmt.Errorf("listing rules: %w", err)
		}
		for _, r := range list {
			if r.Protocol == protocol && r.Priority == rulePriority && (r.Table == uplinkTableID || r.Table == podTableID) {
				out[ruleKey{r.IifName, r.Table, family}] = true
			}
		}
	}
	return out, nil
}
