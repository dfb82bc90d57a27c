package linux

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// conn is a pair of netlink sockets with extended error messages and strict
// checking of dump requests, so that the kernel filters what it is asked to.
type conn struct {
	sockets map[int]*nl.SocketHandle
	// port is the route socket's port, by which our own changes are told from
	// those of others in notifications.
	port uint32
	// seg6 is the id of the generic netlink family SEG6.
	seg6 uint16
}

// dumpTries bounds the repetition of dumps that a concurrent change made
// inconsistent.
const dumpTries = 10

func newConn() (*conn, error) {
	c := &conn{sockets: map[int]*nl.SocketHandle{}}
	for _, proto := range []int{unix.NETLINK_ROUTE, unix.NETLINK_GENERIC} {
		s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), proto)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("opening netlink: %w", err)
		}
		c.sockets[proto] = &nl.SocketHandle{Socket: s}
		err = errors.Join(
			s.SetExtAck(true),
			unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1),
			s.SetReceiveTimeout(&unix.Timeval{Sec: 30}),
			s.SetSendTimeout(&unix.Timeval{Sec: 30}))
		if err != nil {
			c.close()
			return nil, fmt.Errorf("setting up netlink: %w", err)
		}
	}
	var err error
	if c.port, err = c.sockets[unix.NETLINK_ROUTE].Socket.GetPid(); err != nil {
		c.close()
		return nil, fmt.Errorf("netlink port: %w", err)
	}
	return c, nil
}

func (c *conn) close() {
	for _, s := range c.sockets {
		s.Close()
	}
}

// message is a netlink request under construction: a fixed header, then
// attributes.
type message struct{ *nl.NetlinkRequest }

// fixed is the header that comes before the attributes.
type fixed []byte

func (f fixed) Len() int          { return len(f) }
func (f fixed) Serialize() []byte { return f }

func (c *conn) message(kind, flags int, header []byte) message {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = c.sockets
	req.AddData(fixed(header))
	return message{req}
}

func (m message) attr(kind int, data []byte) { m.AddData(nl.NewRtAttr(kind, data)) }

func (m message) u32(kind int, v uint32) { m.attr(kind, nl.Uint32Attr(v)) }

// do sends the request and waits for the kernel's answer.
func (m message) do() error {
	_, err := m.Execute(unix.NETLINK_ROUTE, 0)
	return meaning(err)
}

// dump sends a dump request and hands each answer's payload to f. An
// inconsistent dump is repeated: reset, which may be nil, is called before each
// try.
func (c *conn) dump(kind int, header []byte, attrs func(message), answer uint16, reset func(), f func([]byte) error) error {
	var err error
	for range dumpTries {
		if reset != nil {
			reset()
		}
		m := c.message(kind, unix.NLM_F_DUMP, header)
		if attrs != nil {
			attrs(m)
		}
		var inner error
		err = m.ExecuteIter(unix.NETLINK_ROUTE, answer, func(b []byte) bool {
			inner = f(b)
			return inner == nil
		})
		if inner != nil {
			return inner
		}
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	return meaning(err)
}

// meaning gives the kernel's errors those of the contract, where they have one.
func meaning(err error) error {
	var no syscall.Errno
	if err == nil || !errors.As(err, &no) {
		return err
	}
	switch no {
	case unix.EOPNOTSUPP, unix.EAFNOSUPPORT:
		return fmt.Errorf("%w: %w", dataplane.ErrUnsupported, err)
	case unix.ENODEV, unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EADDRNOTAVAIL:
		return fmt.Errorf("%w: %w", dataplane.ErrNotReady, err)
	case unix.EPERM, unix.EACCES:
		return fmt.Errorf("%w (CAP_NET_ADMIN in the network namespace is needed)", err)
	}
	return err
}

// absent reports whether err says that the object is not there.
func absent(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) ||
		errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// probe answers ErrUnsupported when the kernel lacks a part that everything
// needs. It changes nothing.
func (c *conn) probe() error {
	if err := c.findSeg6(); err != nil {
		return err
	}
	// Deleting a route that cannot exist makes the kernel look at the kind of
	// encapsulation first, and answers ESRCH when it knows it.
	for name, encap := range map[string]uint16{"seg6": encapSeg6, "seg6local": encapSeg6Local} {
		m := c.routeMessage(unix.RTM_DELROUTE, unix.NLM_F_ACK, slot{netip.PrefixFrom(netip.IPv6Unspecified(), 128), unix.RT_TABLE_MAIN, 1<<32 - 2}, unix.RTN_UNSPEC)
		m.attr(unix.RTA_ENCAP_TYPE, nl.Uint16Attr(encap))
		if err := m.do(); err != nil && !absent(err) {
			return fmt.Errorf("kernel encapsulation %q (CONFIG_IPV6_SEG6_LWTUNNEL): %w", name, err)
		}
	}
	if err := c.dumpNexthops(func(nexthop) {}, nil); err != nil {
		return fmt.Errorf("kernel nexthop objects: %w", err)
	}
	return nil
}

// kernelRelease is what uname -r says, with its first two numbers.
func kernelRelease() (release string, major, minor int, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", 0, 0, fmt.Errorf("uname: %w", err)
	}
	release = unix.ByteSliceToString(u.Release[:])
	parts := strings.FieldsFunc(release, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		return "", 0, 0, fmt.Errorf("kernel release %q: no version number in it", release)
	}
	if major, err = strconv.Atoi(parts[0]); err == nil {
		minor, err = strconv.Atoi(parts[1])
	}
	if err != nil {
		return "", 0, 0, fmt.Errorf("kernel release %q: %w", release, err)
	}
	return release, major, minor, nil
}
