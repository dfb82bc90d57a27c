package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/status"
)

// CompareVPP holds a node's status against what VPP itself shows, both ways:
// VPP has exactly the policies of the status, each with the same segment lists
// and source address, exactly its steering entries, each into the same policy,
// and exactly its local SIDs, each with the same behaviour and table. The error
// names every difference.
func (n *Node) CompareVPP(ctx context.Context, s status.Status) error {
	var errs []error
	for _, c := range []struct {
		command string
		compare func(s status.Status, shown string) []error
	}{
		{showPolicies, comparePolicies},
		{showSteering, compareSteering},
		{showLocalSIDs, compareSIDs},
	} {
		shown, err := n.VPPShow(ctx, c.command)
		if err != nil {
			return err
		}
		for _, err := range c.compare(s, shown) {
			errs = append(errs, fmt.Errorf("%s: %s: %w", n.Name, c.command, err))
		}
	}
	return errors.Join(errs...)
}

// differences compares two sets of named things. Something that is there twice
// is surplus once.
type differences struct {
	want, have map[string]string
	errs       []error
}

func newDifferences() *differences {
	return &differences{want: map[string]string{}, have: map[string]string{}}
}

func (d *differences) wanted(name, value string) {
	if _, twice := d.want[name]; twice {
		d.errs = append(d.errs, fmt.Errorf("%s is twice in the status", name))
	}
	d.want[name] = value
}

func (d *differences) shown(name, value string) {
	if _, twice := d.have[name]; twice {
		d.errs = append(d.errs, fmt.Errorf("%s (%s) is surplus: VPP has it twice", name, value))
		return
	}
	d.have[name] = value
}

// all gives the differences, in the names' order.
func (d *differences) all() []error {
	names := make([]string, 0, len(d.want)+len(d.have))
	for name := range d.want {
		names = append(names, name)
	}
	for name := range d.have {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		want, wanted := d.want[name]
		have, shown := d.have[name]
		switch {
		case !shown:
			d.errs = append(d.errs, fmt.Errorf("%s is missing (%s)", name, want))
		case !wanted:
			d.errs = append(d.errs, fmt.Errorf("%s is surplus: the status does not have it (%s)", name, have))
		case want != have:
			d.errs = append(d.errs, fmt.Errorf("%s is %q, the status has %q", name, have, want))
		}
	}
	return d.errs
}

// policyText describes a policy for comparison; the order of its lists means
// nothing.
func policyText(behaviour, kind, table, source string, lists []string) string {
	lists = slices.Sorted(slices.Values(lists))
	return fmt.Sprintf("%s, %s, table %s, source %s, segment lists %s", behaviour, kind, table, source, strings.Join(lists, ", "))
}

func comparePolicies(s status.Status, shown string) []error {
	have, err := parsePolicies(shown)
	if err != nil {
		return []error{err}
	}
	d := newDifferences()
	for _, p := range s.Policies {
		// An entry may hold several lists.
		lists := strings.Split(strings.Join(p.Lists, ", "), ", ")
		d.wanted("BSID "+p.BSID, policyText("Encapsulation", "Default", "0", s.EncapSource, lists))
	}
	for _, p := range have {
		d.shown("BSID "+p.bsid.String(), policyText(p.behaviour, p.kind, p.table, p.source.String(), p.lists))
	}
	return d.all()
}

func compareSteering(s status.Status, shown string) []error {
	have, err := parseSteering(shown)
	if err != nil {
		return []error{err}
	}
	d := newDifferences()
	for _, p := range s.Policies {
		for _, prefix := range p.Prefixes {
			d.wanted(prefix, "into BSID "+p.BSID)
		}
	}
	for _, e := range have {
		d.shown(e.traffic, "into BSID "+e.bsid.String())
	}
	return d.all()
}

func compareSIDs(s status.Status, shown string) []error {
	have, err := parseLocalSIDs(shown)
	if err != nil {
		return []error{err}
	}
	d := newDifferences()
	for _, sid := range s.SIDs {
		table := ""
		if sid.Behaviour == string(dataplane.BehaviourDT4) || sid.Behaviour == string(dataplane.BehaviourDT6) {
			table = strconv.FormatUint(uint64(sid.Table), 10)
		}
		d.wanted(sidName(sid.SID), sidText(sid.Behaviour, table))
	}
	for _, sid := range have {
		d.shown(sid.prefix.String(), sidText(sid.behaviour, sid.table))
	}
	return d.all()
}

// sidName is a status's SID as a prefix: whole addresses stand there bare.
func sidName(sid string) string {
	if strings.Contains(sid, "/") {
		return sid
	}
	return sid + "/128"
}

func sidText(behaviour, table string) string {
	if table == "" {
		return behaviour
	}
	return behaviour + " table " + table
}

// VPPCarried gives how many packets VPP itself has processed without an error,
// by the address of the local SID.
func (n *Node) VPPCarried(ctx context.Context) (map[netip.Addr]uint64, error) {
	shown, err := n.VPPShow(ctx, showLocalSIDs)
	if err != nil {
		return nil, err
	}
	sids, err := parseLocalSIDs(shown)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", n.Name, showLocalSIDs, err)
	}
	return carried(sids), nil
}

func carried(sids []shownSID) map[netip.Addr]uint64 {
	out := map[netip.Addr]uint64{}
	for _, s := range sids {
		out[s.prefix.Addr()] += s.packets
	}
	return out
}
