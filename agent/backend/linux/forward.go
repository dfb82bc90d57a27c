package linux

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// putRoute makes the route in the slot, or replaces the one of ours that is
// there in one step. fill adds what the route does.
func (t *tx) putRoute(s slot, kind uint8, fill func(message)) error {
	send := func(flags int) error {
		m := t.conn.routeMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_ACK|flags, s, kind)
		fill(m)
		return m.do()
	}
	// The kernel's replacement does not look at the protocol number: it would
	// take over a foreign route. So the first try is exclusive.
	if _, ours := t.own[s]; !ours {
		err := send(unix.NLM_F_EXCL)
		if err == nil {
			t.own[s] = struct{}{}
			return nil
		}
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	protocol, err := t.foreignIn(s)
	if err != nil {
		return err
	}
	if protocol != 0 {
		return fmt.Errorf("%s has protocol %d: %w", s, protocol, ErrConflict)
	}
	if err := send(unix.NLM_F_REPLACE); err != nil {
		return err
	}
	t.own[s] = struct{}{}
	return nil
}

// foreignIn is the protocol of a route in the slot that is not ours, 0 when
// there is none. Slots known as ours are taken as such; for others the table is
// read, at most once in an Apply.
func (t *tx) foreignIn(s slot) (int, error) {
	if _, ours := t.own[s]; ours {
		return 0, nil
	}
	id := s.tableID()
	if t.foreign == nil {
		t.foreign = map[tableID]map[slot]int{}
	}
	if t.foreign[id] == nil {
		var found map[slot]int
		err := t.conn.dumpRoutes(id.family, id.table, 0, func() { found = map[slot]int{} }, func(r kernelRoute) {
			if r.protocol != Protocol && r.metric >= metricLocalSID && r.metric <= metricRoute {
				found[r.slot] = int(r.protocol)
			}
		})
		if err != nil {
			return 0, fmt.Errorf("reading route table %d: %w", id.table, err)
		}
		t.foreign[id] = found
	}
	return t.foreign[id][s], nil
}

// routeDeletions bounds how many routes of one slot are deleted; the kernel can
// hold several, though this program makes one.
const routeDeletions = 64

// deleteRoute removes our route in the slot; an absent one is no error.
func (t *tx) deleteRoute(s slot) error {
	if err := checkPrefix(s.prefix); err != nil {
		return err
	}
	for range routeDeletions {
		err := t.conn.routeMessage(unix.RTM_DELROUTE, unix.NLM_F_ACK, s, unix.RTN_UNSPEC).do()
		if absent(err) {
			break
		}
		if err != nil {
			return err
		}
	}
	delete(t.own, s)
	return nil
}

// setRoute makes a plain route or a drop.
func (t *tx) setRoute(k dataplane.RouteKey, want dataplane.Route) error {
	if err := checkPrefix(k.Prefix); err != nil {
		return err
	}
	s := slot{k.Prefix, tableOrMain(k.Table), metricRoute}
	if len(want.NextHops) == 0 {
		// rtnetlink: a blackhole drops without an ICMP error.
		if err := t.putRoute(s, unix.RTN_BLACKHOLE, func(message) {}); err != nil {
			return err
		}
		t.remember(k, want, want)
		return nil
	}
	family := familyOf(k.Prefix.Addr())
	held := dataplane.Route{NextHops: slices.Clone(want.NextHops)}
	var hops []hop
	for i := range held.NextHops {
		n := &held.NextHops[i]
		n.Weight = max(n.Weight, 1)
		if len(held.NextHops) == 1 {
			n.Weight = 1 // the kernel keeps no weight for a single path
		}
		l, err := t.links.need(n.Interface)
		if err != nil {
			return err
		}
		switch {
		case family == unix.AF_INET6 && n.Gateway.Is4():
			return fmt.Errorf("IPv4 gateway %s for an IPv6 prefix: %w", n.Gateway, dataplane.ErrUnsupported)
		case family == unix.AF_INET6 && !n.Gateway.IsValid() && len(held.NextHops) > 1:
			return fmt.Errorf("several paths, and %s without a gateway: for IPv6 the kernel wants one for each: %w", n.Interface, dataplane.ErrUnsupported)
		}
		hops = append(hops, hop{index: l.index, gateway: n.Gateway.WithZone(""), weight: uint32(n.Weight)})
	}
	if err := t.putRoute(s, unix.RTN_UNICAST, func(m message) { m.addHops(family, hops) }); err != nil {
		return err
	}
	t.remember(k, want, held)
	return nil
}

// setLocalSID makes a seg6local route on the first uplink.
func (t *tx) setLocalSID(k dataplane.LocalSIDKey, v dataplane.LocalSID) error {
	if err := checkPrefix(k.SID); err != nil {
		return err
	}
	switch {
	case !k.SID.Addr().Is6():
		return fmt.Errorf("SID %s is not an IPv6 prefix", k.SID)
	case v.Behaviour == dataplane.BehaviourUN && k.SID.Bits() != blockBits+nodeBits:
		return fmt.Errorf("uN %s: the length must be /%d (F3216): %w", k.SID, blockBits+nodeBits, dataplane.ErrUnsupported)
	case len(t.uplinks) == 0:
		return fmt.Errorf("local SIDs are bound to the first uplink, and none is configured: %w", dataplane.ErrUnsupported)
	}
	if v.Behaviour == dataplane.BehaviourDT46 || v.Behaviour == dataplane.BehaviourDT4 && mainAsZero(v.Table) != 0 {
		if err := t.thread.do(func() error { _, err := readSysctl(sysctlVRFStrict); return err }); err != nil {
			return fmt.Errorf("%s in table %d needs a VRF device bound to the table: %w", v.Behaviour, v.Table, err)
		}
	}
	encap, err := encodeLocalSID(v)
	if err != nil {
		return err
	}
	dev, err := t.links.need(t.uplinks[0])
	if err != nil {
		return err
	}
	err = t.putRoute(slot{k.SID, unix.RT_TABLE_MAIN, metricLocalSID}, unix.RTN_UNICAST, func(m message) {
		m.u32(unix.RTA_OIF, uint32(dev.index))
		m.attr(unix.RTA_ENCAP_TYPE, nl.Uint16Attr(encapSeg6Local))
		m.attr(unix.RTA_ENCAP|unix.NLA_F_NESTED, encap)
	})
	if err != nil {
		return err
	}
	t.remember(k, v, decodeLocalSID(encap))
	return nil
}

// uplinkMTU is the smallest MTU of the uplinks that exist, 0 when none does.
func (b *Backend) uplinkMTU(links *linkTable) uint32 {
	var mtu uint32
	for _, u := range b.uplinks {
		if l := links.byName[u]; l != nil && (mtu == 0 || l.mtu < mtu) {
			mtu = l.mtu
		}
	}
	return mtu
}
