// Package traffic sends and watches packets from inside network namespaces:
// reachability, loss, throughput and the spread of flows. All of it runs in the
// calling process; a socket stays in the namespace in which it was made.
package traffic

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/test/lab/ns"
)

// Headers of a UDP packet in bytes, by family.
const (
	udpHeaders4 = 20 + 8
	udpHeaders6 = 40 + 8
)

// FullUDP is the largest UDP payload in bytes that fits one packet of the MTU.
func FullUDP(mtu int, to netip.Addr) int {
	if to.Is4() {
		return mtu - udpHeaders4
	}
	return mtu - udpHeaders6
}

// network gives the name that package net wants: "udp4", "tcp6".
func network(proto string, a netip.Addr) string {
	if a.Is4() {
		return proto + "4"
	}
	return proto + "6"
}

// wildcard is the wildcard address of a's family.
func wildcard(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// dontFragment makes a socket's packets whole or not at all: too big a packet
// is an error (EMSGSIZE), not fragments that hide a wrong MTU.
func dontFragment(network, _ string, c syscall.RawConn) error {
	var err error
	ctl := c.Control(func(fd uintptr) {
		if network == "udp4" || network == "tcp4" {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			return
		}
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	})
	if ctl != nil {
		return ctl
	}
	return err
}

// listenUDP opens an unconnected UDP socket in a namespace.
func listenUDP(nsName string, local netip.AddrPort) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := ns.Do(nsName, func() error {
		lc := net.ListenConfig{Control: dontFragment}
		pc, err := lc.ListenPacket(context.Background(), network("udp", local.Addr()), local.String())
		if err != nil {
			return err
		}
		conn = pc.(*net.UDPConn)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: UDP socket %s: %w", nsName, local, err)
	}
	return conn, nil
}

// dialUDP opens a connected UDP socket; local port 0 is any.
func dialUDP(nsName string, localPort uint16, to netip.AddrPort) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := ns.Do(nsName, func() error {
		d := net.Dialer{Control: dontFragment, LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(wildcard(to.Addr()), localPort))}
		c, err := d.Dial(network("udp", to.Addr()), to.String())
		if err != nil {
			return err
		}
		conn = c.(*net.UDPConn)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: UDP to %s: %w", nsName, to, err)
	}
	return conn, nil
}

// listenTCP opens a TCP listener in a namespace.
func listenTCP(nsName string, local netip.AddrPort) (*net.TCPListener, error) {
	var l *net.TCPListener
	err := ns.Do(nsName, func() error {
		var lc net.ListenConfig
		nl, err := lc.Listen(context.Background(), network("tcp", local.Addr()), local.String())
		if err != nil {
			return err
		}
		l = nl.(*net.TCPListener)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: TCP listener %s: %w", nsName, local, err)
	}
	return l, nil
}

// dialTCP connects from a namespace.
func dialTCP(nsName string, to netip.AddrPort, timeout time.Duration) (*net.TCPConn, error) {
	var conn *net.TCPConn
	err := ns.Do(nsName, func() error {
		d := net.Dialer{Timeout: timeout}
		c, err := d.Dial(network("tcp", to.Addr()), to.String())
		if err != nil {
			return err
		}
		conn = c.(*net.TCPConn)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: TCP to %s: %w", nsName, to, err)
	}
	return conn, nil
}

// receiveBuffer of sockets that count packets, in bytes.
const receiveBuffer = 8 << 20

// growBuffer makes a counting socket's receive buffer large: beyond the system's
// limit where the process may, else up to it.
func growBuffer(conn syscall.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
	})
}
