package linux

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// dontFragment makes the kernel refuse what does not fit (RFC 1191, RFC 8201)
// instead of fragmenting it.
func dontFragment(t *testing.T, c *net.UDPConn, v6 bool) {
	control(t, c, func(fd int) error {
		if v6 {
			return errors.Join(
				unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO),
				unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1))
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
}

// exchange sends a datagram that makes an IP packet of the given size and
// expects it at the other end. It returns the source that arrived.
func exchange(t *testing.T, from *space, to *net.UDPConn, dst netip.Addr, size int) netip.Addr {
	t.Helper()
	port := to.LocalAddr().(*net.UDPAddr).Port
	c := dialUDP(t, from, "", netip.AddrPortFrom(dst, uint16(port)).String())
	dontFragment(t, c, dst.Is6())
	header := 28
	if dst.Is6() {
		header = 48
	}
	sent := make([]byte, size-header)
	for i := range sent {
		sent[i] = byte(i)
	}
	_, err := c.Write(sent)
	require.NoError(t, err, "sending %d bytes to %s", size, dst)
	got := make([]byte, 65536)
	require.NoError(t, to.SetReadDeadline(time.Now().Add(2*time.Second)))
	n, src, err := to.ReadFromUDPAddrPort(got)
	require.NoError(t, err, "%d bytes to %s did not arrive", size, dst)
	require.Equal(t, sent, got[:n])
	return src.Addr().Unmap()
}

// TestForwarding: pods, and the node itself, reach a pod of the other node over
// SRv6, up to exactly the MTU that the overhead leaves.
func TestForwarding(t *testing.T) {
	const mtu = 1500
	a, b := newPair(t, mtu)
	at4 := listenUDP(t, b.pod, netip.AddrPortFrom(b.pod4(), 5000).String())
	at6 := listenUDP(t, b.pod, netip.AddrPortFrom(b.pod6(), 5000).String())
	encapsulated := func() int { return a.txPackets(t) }
	for _, lists := range []struct {
		name string
		full int
		via  []string
	}{
		{"one segment", mtu - 40, nil},
		{"two segments", mtu - 64, []string{b.sid("e000").String()}},
		{"three segments", mtu - 80, []string{b.sid("e000").String(), b.sid("e000").String()}},
		{"one segment again", mtu - 40, nil},
	} {
		a.setPolicy(b, 4, list(1, append(lists.via, b.sid("e004").String())...))
		a.setPolicy(b, 6, list(1, append(lists.via, b.sid("e006").String())...))
		reach(t, a.b, a.want)
		for _, from := range []struct {
			name string
			*space
			source map[bool]netip.Addr
		}{
			{"pod", a.pod, map[bool]netip.Addr{false: a.pod4(), true: a.pod6()}},
			{"node", a.space, map[bool]netip.Addr{false: addr(a.host4()), true: addr(a.host6())}},
		} {
			for _, size := range []int{100, 1280, lists.full} {
				for _, to := range []struct {
					c  *net.UDPConn
					ip netip.Addr
				}{{at4, b.pod4()}, {at6, b.pod6()}} {
					t.Run(fmt.Sprintf("%s/from %s/%d bytes/%s", lists.name, from.name, size, to.ip), func(t *testing.T) {
						before := encapsulated()
						src := exchange(t, from.space, to.c, to.ip, size)
						require.Equal(t, from.source[to.ip.Is6()], src)
						require.Greater(t, encapsulated(), before, "the packet took another way than the uplink")
					})
				}
			}
		}
		t.Run(lists.name+"/one byte more", func(t *testing.T) {
			for _, ip := range []netip.Addr{b.pod4(), b.pod6()} {
				c := dialUDP(t, a.space, "", netip.AddrPortFrom(ip, 5000).String())
				dontFragment(t, c, ip.Is6())
				header := map[bool]int{false: 28, true: 48}[ip.Is6()]
				_, err := c.Write(make([]byte, lists.full+1-header))
				require.ErrorIs(t, err, unix.EMSGSIZE, ip.String())
			}
		})
	}
}

func (n *labNode) txPackets(t *testing.T) int {
	t.Helper()
	return int(n.link("up0").Attrs().Statistics.TxPackets)
}
