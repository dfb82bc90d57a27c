package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// flows sends one datagram in each of n flows from the pod.
func flows(t *testing.T, n *labNode, dst netip.Addr, count int) {
	t.Helper()
	c := dialAnyUDP(t, n.pod, dst.Is6())
	for i := range count {
		to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, uint16(10000+i)))
		_, err := c.WriteToUDP([]byte("flow"), to)
		require.NoError(t, err)
		if i%256 == 255 {
			time.Sleep(time.Millisecond)
		}
	}
}

func dialAnyUDP(t *testing.T, s *space, v6 bool) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	network := map[bool]string{false: "udp4", true: "udp6"}[v6]
	s.in(func() (err error) { c, err = net.ListenUDP(network, nil); return err })
	t.Cleanup(func() { c.Close() })
	return c
}

// TestOuterHeader: what is on the wire is H.Encaps.Red, from the node's own
// source, with a flow label for each inner flow.
func TestOuterHeader(t *testing.T) {
	a, b := newPair(t, 1500)
	cap := newCapture(t, b.space, "up0")
	for _, c := range []struct {
		dst  netip.Addr
		sid  netip.Addr
		next uint8
	}{{b.pod4(), b.sid("e004"), unix.IPPROTO_IPIP}, {b.pod6(), b.sid("e006"), unix.IPPROTO_IPV6}} {
		flows(t, a, c.dst, 200)
		labels := map[uint32]bool{}
		got := cap.take()
		require.Len(t, got, 200)
		for _, o := range got {
			require.Equal(t, c.sid, o.dst)
			require.Equal(t, addr(a.host6()), o.src)
			require.Equal(t, c.next, o.next, "no SRH with one segment")
			labels[o.label] = true
		}
		require.Greater(t, len(labels), 190, "flow labels of %s", c.dst)
	}
	delete(a.want.Settings, dataplane.SettingFlowLabel)
	reach(t, a.b, a.want)
	flows(t, a, b.pod4(), 20)
	for _, o := range cap.take() {
		require.Zero(t, o.label)
	}
}

// TestBindingSIDIsNoWayIn: without a segment routing header a packet to a
// binding SID must not be steered, or else it would come back out of its own
// encapsulation and go round until its hop limit ends.
func TestBindingSIDIsNoWayIn(t *testing.T) {
	a, b := newPair(t, 1500)
	cap := newCapture(t, b.space, "up0")
	for _, from := range []*space{a.space, a.pod} {
		c := dialAnyUDP(t, from, true)
		_, _ = c.WriteToUDP([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.bsid(b, 6), 9)))
	}
	require.Empty(t, cap.take())
}

// TestWeights: flows share the lists in proportion to the weights.
func TestWeights(t *testing.T) {
	a, b := newPair(t, 1500)
	for _, f := range []string{"ipv4/fib_multipath_hash_policy", "ipv6/fib_multipath_hash_policy"} {
		a.setSysctl(f, 1) // by ports too: that is the host's to set
	}
	cap := newCapture(t, b.space, "up0")
	for _, c := range []struct {
		family        int
		dst           netip.Addr
		one, other    uint32
		low, high     float64
		whenMaxWeight uint32
	}{
		{4, b.pod4(), 3, 1, 0.70, 0.80, 0},
		{6, b.pod6(), 1, 4, 0.15, 0.25, 0},
		{4, b.pod4(), 1, 1000, 0, 0.01, 65535},
		{6, b.pod6(), 3_000_000, 1_000_000, 0.70, 0.80, 0},
	} {
		t.Run(fmt.Sprintf("%d to %d/%s", c.one, c.other, c.dst), func(t *testing.T) {
			if a.b.maxWeight < c.whenMaxWeight {
				t.Skipf("kernel %s holds weights up to %d", a.b.Version(), a.b.maxWeight)
			}
			// Both lead to the same node, by SIDs that can be told apart.
			one, other := b.sid("e0a1"), b.sid("e0a2")
			for _, sid := range []netip.Addr{one, other} {
				b.want.LocalSIDs[dataplane.LocalSIDKey{SID: netip.PrefixFrom(sid, 128)}] = dataplane.LocalSID{
					Behaviour: map[int]dataplane.Behaviour{4: dataplane.BehaviourDT4, 6: dataplane.BehaviourDT6}[c.family],
				}
			}
			reach(t, b.b, b.want)
			a.setPolicy(b, c.family, list(c.one, one.String()), list(c.other, other.String()))
			reach(t, a.b, a.want)
			const count = 4000
			flows(t, a, c.dst, count)
			n := map[netip.Addr]int{}
			for _, o := range cap.take() {
				n[o.dst]++
			}
			require.Equal(t, count, n[one]+n[other])
			share := float64(n[one]) / count
			require.GreaterOrEqual(t, share, c.low)
			require.LessOrEqual(t, share, c.high)
		})
	}
}

// TestChangeUnderTraffic: policies and steering change many times while packets
// flow, and no packet is lost.
func TestChangeUnderTraffic(t *testing.T) {
	a, b := newPair(t, 1500)
	type stream struct {
		out, in *net.UDPConn
		got     map[uint32]int
	}
	var streams []*stream
	for _, ip := range []netip.Addr{b.pod4(), b.pod6()} {
		s := &stream{in: listenUDP(t, b.pod, netip.AddrPortFrom(ip, 6000).String()), got: map[uint32]int{}}
		require.NoError(t, s.in.SetReadBuffer(4<<20))
		s.out = dialUDP(t, a.pod, "", netip.AddrPortFrom(ip, 6000).String())
		streams = append(streams, s)
	}
	stop := make(chan struct{})
	var senders, receivers sync.WaitGroup
	sent := make([]uint32, len(streams))
	errs := make([]error, len(streams))
	for i, s := range streams {
		senders.Go(func() {
			tick := time.NewTicker(500 * time.Microsecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				if _, err := s.out.Write(binary.BigEndian.AppendUint32(nil, sent[i])); err != nil {
					errs[i] = errors.Join(errs[i], err)
				}
				sent[i]++
			}
		})
		receivers.Go(func() {
			buf := make([]byte, 64)
			for {
				n, _, err := s.in.ReadFromUDP(buf)
				if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
					return
				}
				if n == 4 {
					s.got[binary.BigEndian.Uint32(buf)]++
				}
			}
		})
	}
	const rounds = 60
	for i := range rounds {
		for family, f := range map[int]string{4: "e004", 6: "e006"} {
			last, via := b.sid(f).String(), b.sid("e000").String()
			switch i % 4 {
			case 0:
				a.setPolicy(b, family, list(1, last), list(3, via, last))
			case 1:
				a.setPolicy(b, family, list(1, via, last))
			case 2:
				a.setPolicy(b, family, list(1, last))
			case 3: // the prefix moves to another policy, then the old one goes
				k := dataplane.SteeringKey{Prefix: prefix(map[int]string{4: "10.244.2.0/24", 6: "fd10:244:2::/64"}[family])}
				old := a.want.Steerings[k].BSID
				next := addr(fmt.Sprintf("fcbb:bb00:1:eb51:ffff:%d::%d", i+1, family))
				a.want.Policies[dataplane.PolicyKey{BSID: next}] = policy(list(1, last))
				a.want.Steerings[k] = dataplane.Steering{BSID: next}
				delete(a.want.Policies, dataplane.PolicyKey{BSID: old})
				reach(t, a.b, a.want)
				a.setPolicy(b, family, list(1, last))
				a.want.Steerings[k] = dataplane.Steering{BSID: a.bsid(b, family)}
				delete(a.want.Policies, dataplane.PolicyKey{BSID: next})
			}
		}
		reach(t, a.b, a.want)
		if i%10 == 5 { // as after a restart of the agent
			require.NoError(t, a.b.Close())
			a.b = a.backend("up0")
		}
		time.Sleep(5 * time.Millisecond)
	}
	close(stop)
	senders.Wait()
	time.Sleep(200 * time.Millisecond)
	for _, s := range streams {
		require.NoError(t, s.in.SetReadDeadline(time.Now()))
	}
	receivers.Wait()
	for i, s := range streams {
		require.NoError(t, errs[i])
		require.Greater(t, sent[i], uint32(200))
		require.Len(t, s.got, int(sent[i]), "packets of stream %d lost", i)
	}
}
