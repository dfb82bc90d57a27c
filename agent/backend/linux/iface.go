package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// setInterface adopts a pod's veth end, or makes the node forward on an uplink.
func (t *tx) setInterface(name string, v dataplane.Interface) error {
	t.watch(name)
	switch v.Role {
	case dataplane.RolePod:
		return t.setPod(name, v)
	case dataplane.RoleUplink:
		return t.setUplink(name, v)
	}
	return fmt.Errorf("role %q of interface %q: %w", v.Role, name, dataplane.ErrUnsupported)
}

// setPod configures the link that the CNI plugin made and marks it as ours.
func (t *tx) setPod(name string, v dataplane.Interface) error {
	l, err := t.links.need(name)
	if err != nil {
		return err
	}
	if slices.Contains(t.uplinks, name) {
		return fmt.Errorf("interface %q is an uplink and cannot be a pod's: %w", name, dataplane.ErrUnsupported)
	}
	// Before it comes up: what it does on coming up depends on them.
	err = t.thread.do(func() error {
		for _, s := range []struct {
			name  string
			value int
		}{
			{conf6(name, "disable_ipv6"), 0},
			// A pod must not steer the node by router advertisements.
			{conf6(name, "accept_ra"), 0},
			// The link has two ends and addresses made by us: detection of
			// duplicates only delays the first packets.
			{conf6(name, "accept_dad"), 0},
			{conf6(name, "forwarding"), 1},
			{conf4(name, "forwarding"), 1},
		} {
			if err := writeSysctl(s.name, s.value); err != nil {
				return err
			}
		}
		return relaxReversePath(name)
	})
	if err != nil {
		return err
	}
	var ch linkChange
	if v.MTU != 0 && uint32(v.MTU) != l.mtu {
		ch.mtu = uint32(v.MTU)
	}
	var flushed []kernelNeighbour
	if v.MAC != l.mac {
		ch.mac = v.MAC
		// The kernel forgets all neighbours of an interface, static ones
		// included, when its address changes.
		if flushed, err = t.neighboursOn(l.index); err != nil {
			return err
		}
	}
	up, alias := true, PodAlias
	ch.up, ch.alias = &up, &alias
	if err := t.conn.setLink(l.index, ch); err != nil {
		return fmt.Errorf("configuring interface %q (%s): %w", name, v, err)
	}
	for _, n := range flushed {
		if err := t.conn.putNeighbour(n.index, n.ip, n.mac); err != nil {
			return fmt.Errorf("restoring neighbour %s on interface %q: %w", n.ip, name, err)
		}
	}
	held := v
	if v.MTU == 0 {
		held.MTU = uint16(min(l.mtu, 65535))
	} else {
		l.mtu = uint32(v.MTU)
	}
	if v.MAC.IsZero() {
		held.MAC = l.mac
	} else {
		l.mac = v.MAC
	}
	l.up, l.alias = true, PodAlias
	t.remember(dataplane.InterfaceKey(name), v, held)
	return nil
}

// setUplink makes the node forward on the uplink. The link itself is the host's:
// a wanted MTU or MAC is compared, never set.
func (t *tx) setUplink(name string, v dataplane.Interface) error {
	if !slices.Contains(t.uplinks, name) {
		return t.otherUplink(name)
	}
	l, err := t.links.need(name)
	if err != nil {
		return err
	}
	if v.MTU != 0 && uint32(v.MTU) != l.mtu {
		return fmt.Errorf("uplink %q has MTU %d, wanted is %d: it belongs to the host and is not changed", name, l.mtu, v.MTU)
	}
	if !v.MAC.IsZero() && v.MAC != l.mac {
		return fmt.Errorf("uplink %q has address %s, wanted is %s: it belongs to the host and is not changed", name, l.mac, v.MAC)
	}
	if err := t.thread.do(func() error { return t.forwardOn(l) }); err != nil {
		return fmt.Errorf("forwarding on uplink %q: %w", name, err)
	}
	t.released[name] = false
	t.remember(dataplane.InterfaceKey(name), v, dataplane.Interface{Role: dataplane.RoleUplink})
	return nil
}

// otherUplink refuses an uplink that came after the start: local SIDs and the
// packets' largest size are bound to those that were there.
func (t *tx) otherUplink(name string) error {
	has := "without any"
	if len(t.uplinks) > 0 {
		has = "with " + strings.Join(t.uplinks, ", ")
	}
	return fmt.Errorf("interface %q is not among the uplinks, which stay as they were at the start (%s): restart the agent, with %q in its configuration's \"uplinks\" if it is to be one: %w",
		name, has, name, dataplane.ErrUnsupported)
}

// forwardOn sets the sysctls for an uplink, on the backend's thread.
//
// A host that forwards takes no router advertisements unless accept_ra is 2, and
// loses the default routes it has from them at the moment forwarding is switched
// on (RFC 4861 §6.2.5 as Linux has it). Switching it on for "all" does that to
// every interface, so each one that takes them now is kept taking them.
func (t *tx) forwardOn(uplink *link) error {
	for _, l := range t.links.byName {
		// One that forwards already takes none, and is not made to.
		if l.forward6 || l.acceptRA != 1 || l.alias == PodAlias || l.name == loopback {
			continue
		}
		err := writeSysctl(conf6(l.name, "accept_ra"), 2)
		if errors.Is(err, fs.ErrNotExist) && l != uplink {
			continue // gone in the meantime
		}
		if err != nil {
			return err
		}
		t.log.WithField("interface", l.name).Info("accept_ra set from 1 to 2: the host keeps its routes from router advertisements when it forwards")
	}
	for _, name := range []string{
		"ipv4/ip_forward",
		conf6("all", "forwarding"),
		conf4(uplink.name, "forwarding"),
		conf6(uplink.name, "forwarding"),
	} {
		if err := writeSysctl(name, 1); err != nil {
			return err
		}
	}
	return relaxReversePath(uplink.name)
}

// deleteInterface takes our mark off a pod's link, which the CNI plugin removes,
// and forgets an uplink, which stays as it is.
func (t *tx) deleteInterface(name string) error {
	t.unwatch(name)
	if slices.Contains(t.uplinks, name) {
		t.released[name] = true
		return nil
	}
	l := t.links.byName[name]
	if l == nil || l.alias != PodAlias {
		return nil
	}
	none := ""
	if err := t.conn.setLink(l.index, linkChange{alias: &none}); err != nil && !absent(err) {
		return fmt.Errorf("taking the mark off interface %q: %w", name, err)
	}
	l.alias = ""
	return nil
}

// global is what a dump must know of the namespace's sysctls.
type global struct {
	forward4, forward6 bool
	rpFilter           int
	flowLabel          int
}

func readGlobal() (g global, err error) {
	for _, s := range []struct {
		name string
		set  func(int)
	}{
		{"ipv4/ip_forward", func(v int) { g.forward4 = v != 0 }},
		{conf6("all", "forwarding"), func(v int) { g.forward6 = v != 0 }},
		{conf4("all", "rp_filter"), func(v int) { g.rpFilter = v }},
		{sysctlFlowLabel, func(v int) { g.flowLabel = v }},
	} {
		v, err := readSysctl(s.name)
		if err != nil {
			return global{}, err
		}
		s.set(v)
	}
	return g, nil
}

// forwards reports whether packets pass through the link as they must.
func (l *link) forwards(g global) bool {
	return l.forward4 && l.forward6 && max(uint32(g.rpFilter), l.rpFilter) != 1
}

// readInterfaces adds the interfaces that are ours, or are used by us. A pod's
// link that is marked but not in working order has MTU 0, so that it differs
// from what is wanted.
func (b *Backend) readInterfaces(s dataplane.State, links *linkTable, g global) {
	for _, l := range links.byName {
		k := dataplane.InterfaceKey(l.name)
		switch {
		case slices.Contains(b.uplinks, l.name):
			if g.forward4 && g.forward6 && l.forwards(g) && !b.released[l.name] {
				s.Interfaces[k] = dataplane.Interface{Role: dataplane.RoleUplink}
			}
		case l.alias == PodAlias:
			v := dataplane.Interface{Role: dataplane.RolePod, MAC: l.mac}
			if l.up && l.forwards(g) {
				v.MTU = uint16(min(l.mtu, 65535))
			}
			s.Interfaces[k] = v
		}
	}
}
