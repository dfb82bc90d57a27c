package vpp

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
)

func needMemif(t *testing.T, n *twoNodes) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := binapi.Dial(ctx, binapi.Options{Socket: n.vpp[1].socket()})
	require.NoError(t, err)
	defer c.Close()
	if err := canMemif(c); err != nil {
		t.Skip(err)
	}
}

// client is a VPP in a pod, which joins the pod's memif with a link to an
// application in a namespace of its own: what comes in on one goes out on the
// other.
type client struct {
	app    netns.NsHandle
	socket string
}

const appPort, podPort = 7000, 7

func newClient(t *testing.T, n *twoNodes, node int) *client {
	t.Helper()
	c := &client{app: newNS(t)}
	at(t, n.pod[node], func() {
		vethInto(t, "app0", "eth0", c.app, podMTU)
		t.Cleanup(func() {
			at(t, n.pod[node], func() {
				if l, err := netlink.LinkByName("app0"); err == nil {
					_ = netlink.LinkDel(l)
				}
			})
		})
		c.socket = startClientVPP(t)
	})
	at(t, c.app, func() {
		l, err := netlink.LinkByName("eth0")
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 1}))
		setUpPod(t, node)
	})
	answer(t, c.app, node, appPort, "memif ")
	return c
}

// startClientVPP runs a VPP in the namespace of this goroutine.
func startClientVPP(t *testing.T) (socket string) {
	t.Helper()
	v, err := find.Locate("")
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "swmemif-")
	require.NoError(t, err)
	prefix := filepath.Base(dir)
	conf := filepath.Join(dir, "startup.conf")
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, `unix { nodaemon nosyslog log %[1]s/log cli-listen %[1]s/cli.sock runtime-dir %[1]s poll-sleep-usec 100 }
api-segment { prefix %[2]s }
socksvr { socket-name %[1]s/api.sock }
statseg { socket-name %[1]s/stats.sock page-size 4k }
memory { main-heap-size 256M main-heap-page-size 4k }
buffers { buffers-per-numa 4096 page-size 4k }
plugins { plugin default { disable } plugin af_packet_plugin.so { enable } plugin memif_plugin.so { enable } }
`, dir, prefix), 0o600))
	cmd := exec.Command(v.Path, "-c", conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		os.RemoveAll(dir)
		for _, f := range []string{"-global_vm", "-vpe-api"} {
			os.Remove("/dev/shm/" + prefix + f)
		}
	})
	return filepath.Join(dir, "api.sock")
}

func (c *client) cli(t *testing.T, commands ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := binapi.Dial(ctx, binapi.Options{Socket: c.socket})
	require.NoError(t, err)
	defer conn.Close()
	for _, command := range commands {
		var out string
		call := binapi.CLI(command, &out)
		require.NoError(t, conn.Do(ctx, call))
		require.NoError(t, call.Err, command)
	}
}

// join connects to the pod's memif, in the mode it is made in.
func (c *client) join(t *testing.T, node int, l3 bool) {
	t.Helper()
	c.cli(t, "create host-interface name app0", "set interface state host-app0 up",
		"create memif socket id 1 filename abstract:vpp/memif-eth0")
	if !l3 {
		c.cli(t, "create interface memif socket-id 1 id 0 slave",
			"set interface l2 xconnect memif1/0 host-app0", "set interface l2 xconnect host-app0 memif1/0",
			"set interface state memif1/0 up")
		return
	}
	mac := macOf(t, c.app, "eth0")
	c.cli(t, "create interface memif socket-id 1 id 0 slave mode ip", "set interface state memif1/0 up",
		"set interface mac address host-app0 "+gatewayMAC.String(),
		"set interface ip address host-app0 169.254.1.1/32", "enable ip6 interface host-app0",
		"set interface unnumbered memif1/0 use host-app0", "enable ip6 interface memif1/0",
		"ip route add 0.0.0.0/0 via memif1/0", "ip route add ::/0 via memif1/0")
	for _, ip := range []netip.Addr{ip4(node), ip6(node)} {
		c.cli(t, fmt.Sprintf("set ip neighbor host-app0 %s %s", ip, mac),
			fmt.Sprintf("ip route add %s/%d via %s host-app0", ip, ip.BitLen(), ip))
	}
}

// answer serves UDP and TCP on a port of a pod's addresses: what comes in goes
// back behind a word that says who answered.
func answer(t *testing.T, ns netns.NsHandle, node, port int, word string) {
	t.Helper()
	at(t, ns, func() {
		for _, ip := range []netip.Addr{ip4(node), ip6(node)} {
			to := netip.AddrPortFrom(ip, uint16(port))
			u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(to))
			require.NoError(t, err)
			l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(to))
			require.NoError(t, err)
			t.Cleanup(func() { u.Close(); l.Close() })
			go func() {
				buf := make([]byte, 65536)
				for {
					k, from, err := u.ReadFromUDPAddrPort(buf)
					if err != nil {
						return
					}
					_, _ = u.WriteToUDPAddrPort(append([]byte(word), buf[:k]...), from)
				}
			}()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer conn.Close()
						_, _ = conn.Write([]byte(word))
						_, _ = io.Copy(conn, conn)
					}()
				}
			}()
		}
	})
}

// ask sends a datagram from a pod and gives what comes back.
func (n *twoNodes) ask(t *testing.T, from int, to netip.AddrPort, size int, wait time.Duration) (string, error) {
	var c *net.UDPConn
	at(t, n.pod[from], func() {
		var err error
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		require.NoError(t, err)
	})
	defer c.Close()
	if _, err := c.Write(make([]byte, size)); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 65536)
	k, err := c.Read(buf)
	if err != nil {
		return "", err
	}
	if k != 6+size {
		return "", fmt.Errorf("%d bytes came back, want %d", k, 6+size)
	}
	return string(buf[:6]), nil
}

// requireAnswer asks until the one that is expected answers.
func (n *twoNodes) requireAnswer(t *testing.T, want string, port, size int) {
	t.Helper()
	for _, ip := range []netip.Addr{ip4(1), ip6(1)} {
		to := netip.AddrPortFrom(ip, uint16(port))
		require.Eventually(t, func() bool {
			got, err := n.ask(t, 0, to, size, 300*time.Millisecond)
			return err == nil && got == want
		}, 10*time.Second, 50*time.Millisecond, "no answer from %s of %q to %d bytes", to, want, size)
	}
}

// requireStream sends bytes through a TCP connection and back.
func (n *twoNodes) requireStream(t *testing.T, want string, port int) {
	t.Helper()
	const size = 1 << 20
	for _, ip := range []netip.Addr{ip4(1), ip6(1)} {
		var conn net.Conn
		at(t, n.pod[0], func() {
			var err error
			conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(ip, uint16(port)).String(), 5*time.Second)
			require.NoError(t, err)
		})
		require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		word := make([]byte, 6)
		_, err := io.ReadFull(conn, word)
		require.NoError(t, err)
		require.Equal(t, want, string(word))
		sent := make(chan error, 1)
		go func() {
			_, err := conn.Write(make([]byte, size))
			sent <- err
		}()
		_, err = io.ReadFull(conn, make([]byte, size))
		require.NoError(t, err)
		require.NoError(t, <-sent)
		conn.Close()
	}
}

// memifState is node 1's state with a memif for ports 7000 to 7010.
func (n *twoNodes) memifState(l3 bool) dataplane.State {
	s := n.want[1].Clone()
	v := dataplane.Interface{
		Role: dataplane.RoleMemif, MTU: podMTU, MAC: gatewayMAC,
		Memif: dataplane.Memif{
			Netns: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.pod[1])), Socket: "vpp/memif-eth0", L3: l3, PeerMAC: dataplane.MAC{2, 0, 0, 0, 0, 1},
			IPs: dataplane.FormatIPs([]netip.Addr{ip4(1), ip6(1)}), Ports: "tcp:7000-7010,udp:7000", Veth: podLink(1),
		},
	}
	if l3 {
		v.MAC, v.Memif.PeerMAC = dataplane.MAC{}, dataplane.MAC{}
	}
	s.Interfaces[dataplane.MemifKey(podLink(1))] = v
	return s
}

// TestMemif sends UDP and TCP from a pod on one node to a pod on another, over
// SRv6, where ports choose between the pod's veth and its memif.
func TestMemif(t *testing.T) {
	n := newTwoNodes(t, Options{UplinkDriver: DriverAFPacket, PodDriver: DriverAFXDP})
	needMemif(t, n)
	answer(t, n.pod[1], 1, podPort, "veth  ")
	answer(t, n.pod[1], 1, 7011, "veth  ")
	for _, l3 := range []bool{false, true} {
		t.Run(map[bool]string{false: "ethernet", true: "ip"}[l3], func(t *testing.T) {
			want := n.memifState(l3)
			at(t, n.node[1], func() { apply(t, n.backend[1], want) })
			newClient(t, n, 1).join(t, 1, l3)

			n.requireAnswer(t, "memif ", appPort, 10)
			n.requireAnswer(t, "memif ", appPort, 1300)
			n.requireAnswer(t, "veth  ", podPort, 10)
			n.requireAnswer(t, "veth  ", 7011, 10)
			// Later fragments have no ports: they stay with the veth.
			n.requireAnswer(t, "veth  ", podPort, 4000)
			n.requireStream(t, "memif ", appPort)
			n.requireStream(t, "veth  ", podPort)

			t.Run("repair", func(t *testing.T) { n.memifRepair(t, want) })
			if !l3 {
				t.Run("VPP killed", func(t *testing.T) {
					n.vpp[1].kill(t)
					n.vpp[1].waitReady(t)
					at(t, n.node[1], func() { apply(t, n.backend[1], want) })
					n.requireAnswer(t, "memif ", appPort, 10)
					n.requireAnswer(t, "veth  ", podPort, 10)
				})
			}
			at(t, n.node[1], func() { apply(t, n.backend[1], n.want[1]) })
			n.requireAnswer(t, "veth  ", podPort, 10)
			n.requireNoMemif(t)
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		answer(t, n.pod[1], 1, appPort, "veth  ")
		n.requireAnswer(t, "veth  ", appPort, 10)
		at(t, n.node[1], func() { apply(t, n.backend[1], n.memifState(false)) })
		n.requireAnswer(t, "veth  ", podPort, 10)
		_, err := n.ask(t, 0, netip.AddrPortFrom(ip4(1), appPort), 10, 300*time.Millisecond)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the memif's ports are the memif's, also when nobody has opened it")
		at(t, n.node[1], func() { apply(t, n.backend[1], n.want[1]) })
		n.requireAnswer(t, "veth  ", appPort, 10)
	})
}

// memifRepair takes parts away, one after the other: each is noticed and put
// back, and what is not the memif's goes on all the time.
func (n *twoNodes) memifRepair(t *testing.T, want dataplane.State) {
	key := dataplane.MemifKey(podLink(1))
	for _, command := range []string{
		"set interface state loop8400 down",
		"set ip neighbor del MEMIF 10.244.2.10 02:00:00:00:00:01",
		"abf attach ip4 del policy POLICY loop8400",
		"set ip neighbor del loop8400 10.244.2.10 02:53:57:00:00:01",
		"set interface mtu packet 1400 MEMIF",
		"set interface state MEMIF down",
	} {
		var parts *memifParts
		at(t, n.node[1], func() {
			c, err := n.backend[1].connect(context.Background())
			require.NoError(t, err)
			view, err := readView(context.Background(), c)
			require.NoError(t, err)
			all, err := readMemifs(context.Background(), c, view)
			require.NoError(t, err)
			parts = all[string(key)]
		})
		if want.Interfaces[key].Memif.L3 && strings.HasPrefix(command, "set ip neighbor") {
			continue // it has none
		}
		n.vpp[1].cli(t, strings.NewReplacer("MEMIF", parts.iface.Name, "POLICY", fmt.Sprint(memifPolicyID(parts.junction.Index, false))).Replace(command))
		at(t, n.node[1], func() {
			have, err := n.backend[1].Dump(context.Background())
			require.NoError(t, err)
			require.NotEqual(t, want.Interfaces[key], have.Interfaces[key], command)
			apply(t, n.backend[1], want)
		})
		n.requireAnswer(t, "veth  ", podPort, 10)
	}
	n.requireAnswer(t, "memif ", appPort, 10)
}

// requireNoMemif: nothing of it is left in VPP.
func (n *twoNodes) requireNoMemif(t *testing.T) {
	t.Helper()
	for command, left := range map[string]string{
		"show interface": "memif|loop84", "show acl-plugin acl": "sidewinder", "show abf policy": "policy:", "show abf attach": "policy:", "show memif": "vpp/memif", "show ip table": "21335", "show ip6 table": "21335",
	} {
		require.NotRegexp(t, left, n.vpp[1].cli(t, command), command)
	}
}

// A namespace that is not there is no reason to take the pod's veth down.
func TestMemifOfNowhere(t *testing.T) {
	n := newTwoNodes(t, Options{UplinkDriver: DriverAFPacket, PodDriver: DriverAFXDP})
	needMemif(t, n)
	answer(t, n.pod[1], 1, podPort, "veth  ")
	want := n.memifState(false)
	key := dataplane.MemifKey(podLink(1))
	v := want.Interfaces[key]
	v.Memif.Netns = "/var/run/netns/none-such"
	want.Interfaces[key] = v
	at(t, n.node[1], func() {
		have, err := n.backend[1].Dump(context.Background())
		require.NoError(t, err)
		for range 2 {
			err = n.backend[1].Apply(context.Background(), dataplane.Diff(want, have))
			failed, rest := dataplane.Failures(err)
			require.NoError(t, rest)
			require.Len(t, failed, 1)
			require.ErrorIs(t, failed[key], dataplane.ErrNotReady)
			require.ErrorContains(t, failed[key], "none-such")
			have, err = n.backend[1].Dump(context.Background())
			require.NoError(t, err)
		}
	})
	n.requireAnswer(t, "veth  ", podPort, 10)
	at(t, n.node[1], func() { apply(t, n.backend[1], n.want[1]) })
	n.requireNoMemif(t)
}

// A memif whose maker ended before it was tagged is found by its socket, made
// anew and removed.
func TestMemifWithoutATag(t *testing.T) {
	n := newTwoNodes(t, Options{UplinkDriver: DriverAFPacket, PodDriver: DriverAFXDP})
	needMemif(t, n)
	want := n.memifState(false)
	untag := func() {
		c, err := n.backend[1].connect(context.Background())
		require.NoError(t, err)
		v, err := readView(context.Background(), c)
		require.NoError(t, err)
		h := v.memifs.interfaces[string(dataplane.MemifKey(podLink(1)))]
		require.NoError(t, do(context.Background(), c, binapi.InterfaceSetTag(h.Index, "x"), binapi.InterfaceSetUp(h.Index, false)))
	}
	at(t, n.node[1], func() {
		apply(t, n.backend[1], want)
		untag()
		apply(t, n.backend[1], want)
		untag()
		apply(t, n.backend[1], n.want[1])
	})
	n.requireNoMemif(t)
}

// The veth that is made anew has another index, and the memif follows it.
func TestMemifFollowsTheVeth(t *testing.T) {
	n := newTwoNodes(t, Options{UplinkDriver: DriverAFPacket, PodDriver: DriverAFXDP})
	needMemif(t, n)
	answer(t, n.pod[1], 1, podPort, "veth  ")
	want := n.memifState(false)
	at(t, n.node[1], func() { apply(t, n.backend[1], want) })
	k := dataplane.InterfaceKey(podLink(1))
	v := want.Interfaces[k]
	v.Rx.Ring = 512 // can only be chosen when it is made
	want.Interfaces[k] = v
	at(t, n.node[1], func() {
		have, err := n.backend[1].Dump(context.Background())
		require.NoError(t, err)
		require.NoError(t, n.backend[1].Apply(context.Background(), dataplane.Diff(want, have)))
		have, err = n.backend[1].Dump(context.Background())
		require.NoError(t, err)
		require.Equal(t, want.Interfaces[dataplane.MemifKey(podLink(1))], have.Interfaces[dataplane.MemifKey(podLink(1))])
		apply(t, n.backend[1], want)
	})
	n.requireAnswer(t, "veth  ", podPort, 10)
}

func TestMemifRefusals(t *testing.T) {
	n := &twoNodes{want: [2]dataplane.State{dataplane.New(), dataplane.New()}}
	key := string(dataplane.MemifKey(podLink(1)))
	good := n.memifState(false).Interfaces[dataplane.InterfaceKey(key)]
	_, err := newMemifWish(key, good)
	require.NoError(t, err)
	for reason, change := range map[string]func(*dataplane.Interface){
		"its name is to be":   func(v *dataplane.Interface) { v.Memif.Veth = "eth0" },
		"has no address":      func(v *dataplane.Interface) { v.Memif.IPs = "" },
		"unable to parse IP":  func(v *dataplane.Interface) { v.Memif.IPs = "x" },
		"neither tcp nor udp": func(v *dataplane.Interface) { v.Memif.Ports = "sctp:1" },
		"MAC addresses":       func(v *dataplane.Interface) { v.Memif.L3 = true },
		"is longer than 106":  func(v *dataplane.Interface) { v.Memif.Netns = "/" + string(make([]byte, 100)) },
		"takes for something": func(v *dataplane.Interface) { v.Memif.Netns = "/a,b" },
	} {
		v := good
		change(&v)
		_, err := newMemifWish(key, v)
		require.ErrorContains(t, err, reason)
	}
}
