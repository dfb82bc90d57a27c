package linux

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// outer is what a capture keeps of an encapsulated packet.
type outer struct {
	src, dst netip.Addr
	label    uint32
	next     uint8
	length   int
}

// capture collects the IPv6 packets that arrive on a link and go to the SID
// block.
type capture struct {
	t  *testing.T
	fd int
}

func newCapture(t *testing.T, s *space, name string) *capture {
	t.Helper()
	c := &capture{t: t, fd: -1}
	index := s.link(name).Attrs().Index
	proto := uint16(unix.ETH_P_IPV6>>8 | unix.ETH_P_IPV6&0xff<<8)
	err := s.do(func() (err error) {
		c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(proto))
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20); err != nil {
			return err
		}
		return unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: index})
	})
	t.Cleanup(func() { unix.Close(c.fd) })
	if errors.Is(err, unix.EPERM) {
		t.Skip("a large receive buffer needs CAP_NET_ADMIN in the initial user namespace")
	}
	require.NoError(t, err)
	return c
}

// take returns what has arrived so far, after a wait that lets packets in flight
// arrive.
func (c *capture) take() []outer {
	c.t.Helper()
	time.Sleep(100 * time.Millisecond)
	var out []outer
	buf := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(c.fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return out
		}
		require.NoError(c.t, err)
		if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING || n < ipv6Header {
			continue
		}
		o := outer{
			src: netip.AddrFrom16([16]byte(buf[8:24])), dst: netip.AddrFrom16([16]byte(buf[24:40])),
			label: binary.BigEndian.Uint32(buf) & 0xfffff, next: buf[6], length: n,
		}
		if prefix("fcbb:bb00::/32").Contains(o.dst) {
			out = append(out, o)
		}
	}
}
