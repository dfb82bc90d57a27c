package linux

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// link is what a dump of the kernel's interfaces says of one.
type link struct {
	index int
	name  string
	up    bool
	mtu   uint32
	mac   dataplane.MAC
	alias string
	// conf4 and conf6 are the interface's IPv4 and IPv6 sysctls that matter
	// here.
	forward4, forward6 bool
	rpFilter           uint32
	acceptRA           int32
}

// Places in the arrays of per-interface sysctls.
const (
	// linux/ip.h, IPV4_DEVCONF_*, less one in the netlink array.
	conf4Forwarding = 0
	conf4RPFilter   = 7
	// linux/ipv6.h, DEVCONF_*.
	conf6Forwarding = 0
	conf6AcceptRA   = 3
	// linux/if_link.h
	iflaInetConf  = 1
	iflaInet6Conf = 2
)

// linkTable is the interfaces of the namespace at one moment.
type linkTable struct {
	byName  map[string]*link
	byIndex map[int]*link
}

func (t *linkTable) nameOf(index int) string {
	if l := t.byIndex[index]; l != nil {
		return l.name
	}
	return ""
}

// need returns the link, or ErrNotReady with its name.
func (t *linkTable) need(name string) (*link, error) {
	if l := t.byName[name]; l != nil {
		return l, nil
	}
	return nil, fmt.Errorf("interface %q does not exist: %w", name, dataplane.ErrNotReady)
}

const loopback = "lo"

func (c *conn) links() (*linkTable, error) {
	var t *linkTable
	err := c.dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg), nil, unix.RTM_NEWLINK, func() {
		t = &linkTable{byName: map[string]*link{}, byIndex: map[int]*link{}}
	}, func(b []byte) error {
		l, err := parseLink(b)
		if err != nil {
			return err
		}
		t.byName[l.name], t.byIndex[l.index] = l, l
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading interfaces: %w", err)
	}
	return t, nil
}

func parseLink(b []byte) (*link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return nil, errors.New("short interface message from the kernel")
	}
	l := &link{
		index: int(int32(binary.NativeEndian.Uint32(b[4:]))),
		up:    binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0,
	}
	for _, a := range attributes(b[unix.SizeofIfInfomsg:]) {
		switch a.kind {
		case unix.IFLA_IFNAME:
			l.name = a.text()
		case unix.IFLA_MTU:
			l.mtu = a.u32()
		case unix.IFLA_ADDRESS:
			if len(a.data) == len(l.mac) {
				l.mac = dataplane.MAC(a.data)
			}
		case unix.IFLA_IFALIAS:
			l.alias = a.text()
		case unix.IFLA_AF_SPEC:
			l.parseConf(a.data)
		}
	}
	return l, nil
}

func (l *link) parseConf(b []byte) {
	at := func(data []byte, i int) uint32 {
		if len(data) < 4*i+4 {
			return 0
		}
		return binary.NativeEndian.Uint32(data[4*i:])
	}
	for _, family := range attributes(b) {
		for _, a := range attributes(family.data) {
			switch {
			case family.kind == unix.AF_INET && a.kind == iflaInetConf:
				l.forward4 = at(a.data, conf4Forwarding) != 0
				l.rpFilter = at(a.data, conf4RPFilter)
			case family.kind == unix.AF_INET6 && a.kind == iflaInet6Conf:
				l.forward6 = at(a.data, conf6Forwarding) != 0
				l.acceptRA = int32(at(a.data, conf6AcceptRA))
			}
		}
	}
}

// linkChange is what setLink can change; nil fields are left alone.
type linkChange struct {
	up    *bool
	mtu   uint32
	mac   dataplane.MAC
	alias *string
}

// setLink changes an interface in one message.
func (c *conn) setLink(index int, ch linkChange) error {
	h := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	if ch.up != nil {
		binary.NativeEndian.PutUint32(h[12:], unix.IFF_UP)
		if *ch.up {
			binary.NativeEndian.PutUint32(h[8:], unix.IFF_UP)
		}
	}
	m := c.message(unix.RTM_NEWLINK, unix.NLM_F_ACK, h)
	if ch.mtu != 0 {
		m.u32(unix.IFLA_MTU, ch.mtu)
	}
	if !ch.mac.IsZero() {
		m.attr(unix.IFLA_ADDRESS, ch.mac[:])
	}
	if ch.alias != nil {
		m.attr(unix.IFLA_IFALIAS, []byte(*ch.alias))
	}
	return m.do()
}
