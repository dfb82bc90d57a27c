package uplink

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Sysctls that are not simply copied to another link before it is up.
const (
	sysctlNoIPv6 = "ipv6/conf/disable_ipv6"
	sysctlDAD    = "ipv6/conf/accept_dad"
	sysctlDADNum = "ipv6/conf/dad_transmits"
	sysctlNotify = "ipv6/conf/ndisc_notify"
	sysctlGARP   = "ipv4/conf/arp_notify"
)

// errRoutes: the kernel refuses routes or next hops; all else is set.
var errRoutes = errors.New("routes were refused")

// apply gives a link all that the host had set on it, however much of it is
// there already. age is how long ago the settings were read.
func apply(name string, s Settings, age time.Duration) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	fail := func(what string, err error) error { return fmt.Errorf("link %s: %s: %w", name, what, err) }
	a := link.Attrs()
	if mac, err := net.ParseMAC(s.MAC); err != nil {
		return fail("MAC "+s.MAC, err)
	} else if !bytes.Equal(mac, a.HardwareAddr) {
		if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
			return fail("MAC "+s.MAC, err)
		}
	}
	if a.MTU != s.MTU {
		if err := netlink.LinkSetMTU(link, s.MTU); err != nil {
			return fail(fmt.Sprintf("MTU %d", s.MTU), err)
		}
	}
	if a.TxQLen != s.TxQueue {
		if err := netlink.LinkSetTxQLen(link, s.TxQueue); err != nil {
			return fail("transmit queue", err)
		}
	}
	if a.Alias != s.Alias {
		if err := netlink.LinkSetAlias(link, s.Alias); err != nil {
			return fail("alias", err)
		}
	}
	for _, alt := range s.AltNames {
		if err := netlink.LinkAddAltName(link, alt); err != nil && !errors.Is(err, unix.EEXIST) {
			return fail("name "+alt, err)
		}
	}
	if err := writeSysctls(name, s.Sysctls); err != nil {
		return fail("settings", err)
	}
	if err := setFlags(link, s); err != nil {
		return err
	}
	if s.Up {
		// The addresses were checked for duplicates when they were first
		// given: again would keep them out of use for a second. Those of IPv4
		// come before up, which announces them.
		if err := announced(name, s.Sysctls, func() error {
			if err := putAddresses(link, ofFamily(s.Addresses, unix.AF_INET), age); err != nil {
				return err
			}
			if err := netlink.LinkSetUp(link); err != nil {
				return fail("up", err)
			}
			return putAddresses(link, s.Addresses, age)
		}); err != nil {
			return err
		}
	} else if err := putAddresses(link, s.Addresses, age); err != nil {
		return err
	}
	if !s.Up {
		return nil // the kernel takes neither neighbours nor routes
	}
	if err := setNeighbours(a.Index, s.Neighbours); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return putRoutes(link, s, age)
}

func setFlags(link netlink.Link, s Settings) error {
	a := link.Attrs()
	if (a.Promisc != 0) != s.Promisc {
		set := netlink.SetPromiscOff
		if s.Promisc {
			set = netlink.SetPromiscOn
		}
		if err := set(link); err != nil {
			return fmt.Errorf("link %s: promiscuous mode: %w", a.Name, err)
		}
	}
	if (a.Allmulti != 0) != s.AllMulti {
		set := netlink.LinkSetAllmulticastOff
		if s.AllMulti {
			set = netlink.LinkSetAllmulticastOn
		}
		if err := set(link); err != nil {
			return fmt.Errorf("link %s: all multicast: %w", a.Name, err)
		}
	}
	return nil
}

// announced runs do while the link does not check for duplicate addresses (RFC
// 4862 §5.4) and announces those that it gets (RFC 4861 §7.2.6, RFC 5227 §3):
// who asked for one while it was away would ask again a second later.
func announced(name string, sysctls map[string]string, do func() error) error {
	during := map[string]string{sysctlDAD: "0", sysctlDADNum: "0", sysctlNotify: "1", sysctlGARP: "1"}
	maps.DeleteFunc(during, func(key, _ string) bool {
		_, ok := sysctls[key]
		return !ok // the kernel is without this family
	})
	for key, value := range during {
		if err := writeSysctl(name, key, value); err != nil {
			return err
		}
	}
	err := do()
	if err == nil {
		err = settled(name)
	}
	for key := range during {
		err = errors.Join(err, writeSysctl(name, key, sysctls[key]))
	}
	return err
}

// announce tells the neighbours of a veth of the host's addresses on it, once
// they can be reached. To set the address that it has makes the kernel do so, and
// forget what it knows of the neighbours.
func announce(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	sysctls, err := readSysctls(name)
	if err != nil {
		return err
	}
	neighbours, err := neighboursOf(link.Attrs().Index)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := announced(name, sysctls, func() error {
		return netlink.LinkSetHardwareAddr(link, link.Attrs().HardwareAddr)
	}); err != nil {
		return fmt.Errorf("link %s: announcement: %w", name, err)
	}
	return setNeighbours(link.Attrs().Index, neighbours)
}

func ofFamily(all []Object, family byte) []Object {
	var out []Object
	for _, o := range all {
		if o.Raw[0] == family {
			out = append(out, o)
		}
	}
	return out
}

// settled waits until the kernel has looked at all addresses of a link: it does
// so a moment after they were added.
func settled(name string) error {
	const most, pause = time.Second, 2 * time.Millisecond
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(most); time.Now().Before(deadline); time.Sleep(pause) {
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.Flags&unix.IFA_F_TENTATIVE != 0 }) {
			return nil
		}
	}
	return nil // they become usable later
}

// sameAddress tells whether two messages are about the same address.
func sameAddress(a, b []byte) bool {
	if a[0] != b[0] || a[1] != b[1] {
		return false
	}
	x, errX := parseAttrs(a[unix.SizeofIfAddrmsg:])
	y, errY := parseAttrs(b[unix.SizeofIfAddrmsg:])
	return errX == nil && errY == nil && bytes.Equal(value(x, unix.IFA_ADDRESS), value(y, unix.IFA_ADDRESS)) &&
		bytes.Equal(value(x, unix.IFA_LOCAL), value(y, unix.IFA_LOCAL))
}

// inOrder is the order in which addresses are added to be listed as they were:
// the first IPv4 address of a prefix is the primary one, and the last IPv6
// address comes first.
func inOrder(all []Object) []Object {
	v6 := ofFamily(all, unix.AF_INET6)
	slices.Reverse(v6)
	return append(ofFamily(all, unix.AF_INET), v6...)
}

// putAddresses adds those that are not there.
func putAddresses(link netlink.Link, all []Object, age time.Duration) error {
	a := link.Attrs()
	have, err := addressesOf(a.Index)
	if err != nil {
		return fmt.Errorf("link %s: %w", a.Name, err)
	}
next:
	for _, o := range inOrder(all) {
		for _, h := range have {
			if sameAddress(o.Raw, h.Raw) {
				continue next
			}
		}
		raw, alive, err := readdress(o, a.Index, age)
		if err != nil {
			return fmt.Errorf("link %s: address %s: %w", a.Name, o.Text, err)
		}
		if !alive {
			continue
		}
		if err := add(unix.RTM_NEWADDR, unix.NLM_F_REPLACE, raw); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("link %s: address %s: %w", a.Name, o.Text, err)
		}
	}
	return nil
}

// putRoutes adds next hop objects and routes. A route may lead over another:
// those that the kernel refuses are tried again as long as others go in.
func putRoutes(link netlink.Link, s Settings, age time.Duration) error {
	a := link.Attrs()
	var hops []error
	for _, o := range s.NextHops {
		raw, err := rehop(o, a.Index)
		if err == nil {
			err = add(unix.RTM_NEWNEXTHOP, unix.NLM_F_REPLACE, raw)
		}
		if err != nil {
			hops = append(hops, fmt.Errorf("link %s: next hop %s: %w", a.Name, o.Text, err))
		}
	}
	left := s.Routes
	for {
		var refused []Object
		var errs []error
		for _, o := range left {
			if err := putRoute(o, s.Index, a.Index, age); err != nil {
				refused = append(refused, o)
				errs = append(errs, fmt.Errorf("link %s: route %s: %w", a.Name, o.Text, err))
			}
		}
		if len(refused) == 0 || len(refused) == len(left) {
			if errs = append(hops, errs...); len(errs) > 0 {
				return fmt.Errorf("%w: %w", errRoutes, errors.Join(errs...))
			}
			return nil
		}
		left = refused
	}
}

func putRoute(o Object, from, to int, age time.Duration) error {
	raw, alive, err := reroute(o, from, to, age)
	if err != nil || !alive {
		return err
	}
	attrs, err := parseAttrs(raw[unix.SizeofRtMsg:])
	if err != nil {
		return err
	}
	// With several paths, what the kernel kept of it without this link is
	// replaced by the whole.
	if value(attrs, unix.RTA_MULTIPATH) != nil {
		return add(unix.RTM_NEWROUTE, unix.NLM_F_REPLACE, raw)
	}
	if err := add(unix.RTM_NEWROUTE, unix.NLM_F_EXCL, raw); !errors.Is(err, unix.EEXIST) {
		return err
	}
	have, err := routesOf(to)
	if err != nil {
		return err
	}
	for _, h := range have {
		if sameRoute(raw, h.Raw) {
			return nil
		}
	}
	return add(unix.RTM_NEWROUTE, unix.NLM_F_APPEND, raw)
}

// sameRoute tells whether two messages are about the same path of the same
// route. Lifetimes go on and do not count.
func sameRoute(a, b []byte) bool {
	const flags = 8 // the last field of struct rtmsg
	if !bytes.Equal(a[:flags], b[:flags]) {
		return false
	}
	x, errX := parseAttrs(a[unix.SizeofRtMsg:])
	y, errY := parseAttrs(b[unix.SizeofRtMsg:])
	if errX != nil || errY != nil {
		return false
	}
	same := []uint16{unix.RTA_DST, unix.RTA_TABLE, unix.RTA_PRIORITY, rtaNHID}
	if value(x, rtaNHID) == nil {
		same = append(same, unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_VIA)
	}
	for _, typ := range same {
		if !bytes.Equal(value(x, typ), value(y, typ)) {
			return false
		}
	}
	return true
}
