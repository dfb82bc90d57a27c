package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/safchain/ethtool"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/cni/api"
	"github.com/sidewinder-net/sidewinder/cni/plugin"
)

func TestAddMakesThePod(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	rt := runtimeConf("c1", pod.Path())
	l := n.list("1.1.0", n.hostLocal(), map[string]any{"somethingElse": true})
	res := n.mustAdd(l, rt)

	require.Len(t, res.Interfaces, 2)
	require.Equal(t, hostName(rt), res.Interfaces[0].Name)
	require.Empty(t, res.Interfaces[0].Sandbox)
	require.Equal(t, "eth0", res.Interfaces[1].Name)
	require.Equal(t, pod.Path(), res.Interfaces[1].Sandbox)
	require.Len(t, res.IPs, 2)
	for _, ip := range res.IPs {
		require.Equal(t, 1, *ip.Interface)
	}
	require.Equal(t, "10.42.0.2/32", res.IPs[0].Address.String())
	require.Equal(t, "fd42::2/128", res.IPs[1].Address.String())

	host := n.links()[hostName(rt)]
	require.NotNil(t, host)
	require.Equal(t, api.GatewayMAC, host.Attrs().HardwareAddr.String())
	require.Equal(t, testMTU, host.Attrs().MTU)
	require.NotZero(t, host.Attrs().Flags&net.FlagUp)

	require.NoError(t, pod.Do(func(ns.NetNS) error {
		link, err := netlink.LinkByName("eth0")
		require.NoError(t, err)
		mac := link.Attrs().HardwareAddr
		require.Equal(t, res.Interfaces[1].Mac, mac.String())
		require.Equal(t, byte(2), mac[0]&3, "locally administered, unicast")
		require.Equal(t, testMTU, link.Attrs().MTU)
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
		require.NoError(t, err)
		for _, a := range addrs {
			if a.IP.IsGlobalUnicast() {
				require.Zero(t, a.Flags&unix.IFA_F_TENTATIVE, "%s is tentative", a)
			}
		}
		for gw, family := range map[string]int{"169.254.1.1": netlink.FAMILY_V4, api.GatewayIPv6.String(): netlink.FAMILY_V6} {
			neighs, err := netlink.NeighList(link.Attrs().Index, family)
			require.NoError(t, err)
			found := false
			for _, nb := range neighs {
				found = found || nb.IP.String() == gw && nb.State == netlink.NUD_PERMANENT && nb.HardwareAddr.String() == api.GatewayMAC
			}
			require.True(t, found, "neighbour %s", gw)
		}
		for dst, gw := range map[string]string{"198.51.100.1": "169.254.1.1", "192.0.2.9": "169.254.1.1", "2001:db8::1": api.GatewayIPv6.String()} {
			r, err := netlink.RouteGet(net.ParseIP(dst))
			require.NoError(t, err, dst)
			require.Equal(t, gw, r[0].Gw.String(), dst)
		}
		raw, err := os.ReadFile("/proc/sys/net/ipv6/conf/eth0/accept_ra")
		require.NoError(t, err)
		require.Equal(t, "0\n", string(raw))
		return nil
	}))

	eps, err := n.client().Endpoints(context.Background())
	require.NoError(t, err)
	require.Len(t, eps, 1)
	require.Equal(t, "default", eps[0].Namespace)
	require.Equal(t, "pod-c1", eps[0].Name)
	require.Equal(t, "u-c1", eps[0].UID)
	require.Equal(t, pod.Path(), eps[0].Netns)

	require.NoError(t, n.check(l, rt))
	require.NoError(t, n.del(l, rt))
	n.requireClean(pod)
	require.NoError(t, n.del(l, rt), "a repeated DEL")
}

// The pod's packets reach the node with nothing but what ADD made: no ARP, no
// neighbour discovery.
func TestPodSendsWithoutAskingForTheGateway(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	rt := runtimeConf("c1", pod.Path())
	n.mustAdd(n.list("1.0.0", n.hostLocal(), nil), rt)
	for _, dst := range []string{"198.51.100.1:9", "[2001:db8::1]:9"} {
		before := n.links()[hostName(rt)].Attrs().Statistics.RxPackets
		require.NoError(t, pod.Do(func(ns.NetNS) error {
			c, err := net.Dial("udp", dst)
			require.NoError(t, err)
			defer c.Close()
			_, err = c.Write([]byte("x"))
			return err
		}))
		require.Eventually(t, func() bool { return n.links()[hostName(rt)].Attrs().Statistics.RxPackets > before }, time.Second, 5*time.Millisecond, dst)
	}
}

func TestResultsOfEveryVersion(t *testing.T) {
	n := newNode(t)
	for _, v := range plugin.Versions {
		t.Run(v, func(t *testing.T) {
			pod := newNS(t)
			rt := runtimeConf("c-"+v, pod.Path())
			l := n.list(v, n.hostLocal(), nil)
			r, err := n.add(l, rt)
			require.NoError(t, err)
			var buf bytes.Buffer
			require.NoError(t, r.PrintTo(&buf))
			var doc map[string]any
			require.NoError(t, json.Unmarshal(buf.Bytes(), &doc))
			require.Equal(t, v, doc["cniVersion"])
			ip := doc["ips"].([]any)[0].(map[string]any)
			require.EqualValues(t, 1, ip["interface"])
			require.Len(t, doc["routes"], 3)
			_, old := ip["version"]
			require.Equal(t, v < "1", old, "ips.version is a field of results before 1.0")
			if v >= "0.4" {
				require.NoError(t, n.check(l, rt))
			}
			again, err := n.add(l, rt)
			require.NoError(t, err)
			var buf2 bytes.Buffer
			require.NoError(t, again.PrintTo(&buf2))
			require.JSONEq(t, buf.String(), buf2.String())
			require.NoError(t, n.del(l, rt))
			n.requireClean(pod)
		})
	}
}

func TestCalicoIPAM(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	rt := runtimeConf("c1", pod.Path())
	l := n.list("0.3.1", map[string]any{"type": fakeIPAM, "store": filepath.Join(n.dir, "fake")}, nil)
	res := n.mustAdd(l, rt)
	require.Len(t, res.IPs, 2)
	require.Len(t, res.Routes, 2)
	raw, err := os.ReadFile(filepath.Join(n.dir, "fake", "net1.c1"))
	require.NoError(t, err)
	require.Contains(t, string(raw), "K8S_POD_NAME=pod-c1", "the IPAM plugin gets the pod's name")
	require.NoError(t, pod.Do(func(ns.NetNS) error {
		for _, dst := range []string{"198.51.100.1", "2001:db8::1"} {
			_, err := netlink.RouteGet(net.ParseIP(dst))
			require.NoError(t, err)
		}
		return nil
	}))
	require.NoError(t, n.del(l, rt))
	n.requireClean(pod)
	l = n.list("1.1.0", map[string]any{"type": fakeIPAM, "store": filepath.Join(n.dir, "fake")}, nil)
	require.NoError(t, n.do(func() error { return n.cni.GetStatusNetworkList(context.Background(), l) }), "an IPAM plugin without STATUS")
}

func TestSingleFamily(t *testing.T) {
	n := newNode(t)
	for name, subnet := range map[string]string{"v4": "10.42.0.0/24", "v6": "fd42::/64"} {
		t.Run(name, func(t *testing.T) {
			pod := newNS(t)
			rt := runtimeConf("c"+name, pod.Path())
			ipam := n.hostLocal()
			ipam["ranges"] = []any{[]any{map[string]any{"subnet": subnet}}}
			delete(ipam, "routes")
			l := n.list("1.1.0", ipam, nil)
			n.mustAdd(l, rt)
			require.NoError(t, pod.Do(func(ns.NetNS) error {
				for family, want := range map[int]bool{netlink.FAMILY_V4: name == "v4", netlink.FAMILY_V6: name == "v6"} {
					rs, err := netlink.RouteList(nil, family)
					require.NoError(t, err)
					has := false
					for _, r := range rs {
						has = has || r.Gw != nil
					}
					require.Equal(t, want, has, "a default route of family %d", family)
				}
				return nil
			}))
			require.NoError(t, n.check(l, rt))
			require.NoError(t, n.del(l, rt))
			n.requireClean(pod)
		})
	}
}

func TestPodWithIPv6Disabled(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	require.NoError(t, pod.Do(func(ns.NetNS) error {
		for _, c := range []string{"all", "default"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+c+"/disable_ipv6", []byte("1"), 0o644); err != nil {
				t.Skipf("needs IPv6 in the kernel: %v", err)
			}
		}
		return nil
	}))
	rt := runtimeConf("c1", pod.Path())
	l := n.list("1.1.0", n.hostLocal(), nil)
	n.mustAdd(l, rt)
	require.NoError(t, n.check(l, rt))
}

func TestMTUAndChecksum(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	rt := runtimeConf("c1", pod.Path())

	_, err := n.add(n.list("1.1.0", n.hostLocal(), map[string]any{"mtu": 9000}), rt)
	e := cniErr(t, err)
	require.Equal(t, types.ErrInvalidNetworkConfig, e.Code)
	require.Contains(t, e.Msg, "mtu")
	n.requireClean(pod)

	n.mu.Lock()
	n.cfg.DisableTxChecksum = true
	n.mu.Unlock()
	l := n.list("1.1.0", n.hostLocal(), map[string]any{"mtu": 1400})
	res := n.mustAdd(l, rt)
	require.Equal(t, 1400, res.Interfaces[1].Mtu)
	require.Equal(t, 1400, n.links()[hostName(rt)].Attrs().MTU)
	require.NoError(t, pod.Do(func(ns.NetNS) error {
		et, err := ethtool.NewEthtool()
		require.NoError(t, err)
		defer et.Close()
		f, err := et.Features("eth0")
		require.NoError(t, err)
		require.False(t, f["tx-checksum-ip-generic"])
		require.False(t, f["tx-tcp-segmentation"])
		return nil
	}))
	ep, err := n.client().Endpoint(t.Context(), rt.ContainerID, rt.IfName)
	require.NoError(t, err)
	require.True(t, ep.WholeChecksums, "the record says so, for VPP to take the pod")
	require.NoError(t, n.check(l, rt))
}

func TestRepeatedAdd(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	rt := runtimeConf("c1", pod.Path())
	l := n.list("1.1.0", n.hostLocal(), nil)
	first := n.mustAdd(l, rt)
	index := n.links()[hostName(rt)].Attrs().Index
	require.Equal(t, first, n.mustAdd(l, rt))
	require.Equal(t, index, n.links()[hostName(rt)].Attrs().Index, "the pod's interface was not touched")

	// The pod's interface has been spoilt since: it is made anew.
	require.NoError(t, pod.Do(func(ns.NetNS) error {
		link, err := netlink.LinkByName("eth0")
		require.NoError(t, err)
		return netlink.LinkSetDown(link)
	}))
	n.mustAdd(l, rt)
	require.NoError(t, n.check(l, rt))
	require.Len(t, n.links(), 1)
	require.Len(t, n.addresses(), 2)
}

func TestRemainsOfABrokenAdd(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	rt := runtimeConf("c1", pod.Path())
	l := n.list("1.1.0", n.hostLocal(), nil)
	waiting := make(chan struct{}, 1)
	n.setAwait(func(ctx context.Context, _ string, present bool) error {
		if !present {
			return nil
		}
		waiting <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	cmd := n.command("ADD", l, rt)
	require.NoError(t, n.do(cmd.Start))
	<-waiting
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Eventually(t, func() bool { return len(n.server.Endpoints()) == 0 }, 2*time.Second, 2*time.Millisecond, "the agent forgets a pod whose plugin has died")
	require.Len(t, n.links(), 1)
	require.Len(t, n.addresses(), 2)

	n.setAwait(nil)
	n.mustAdd(l, rt)
	require.NoError(t, n.check(l, rt))
	require.Len(t, n.addresses(), 2, "the first address was given back")
	require.NoError(t, n.del(l, rt))
	n.requireClean(pod)
}

// Only the address is left of an ADD whose pod died right after.
func TestLeftoverAddress(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	rt := runtimeConf("c1", pod.Path())
	l := n.list("1.1.0", n.hostLocal(), nil)
	n.mustAdd(l, rt)
	require.NoError(t, n.do(func() error { return netlink.LinkDel(n.links()[hostName(rt)]) }))
	require.NoError(t, n.client().DeleteEndpoint(context.Background(), "c1", "eth0"))
	n.mustAdd(l, rt)
	require.NoError(t, n.check(l, rt))
	require.Len(t, n.addresses(), 2)
}

// A dataplane that is away for a moment must not cost a wired pod its interface
// when ADD is repeated.
func TestRepeatedAddWhileTheDataplaneIsAway(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	rt := runtimeConf("c1", pod.Path())
	l := n.list("1.1.0", n.hostLocal(), nil)
	n.mustAdd(l, rt)
	index := n.links()[hostName(rt)].Attrs().Index
	n.setAwait(func(context.Context, string, bool) error { return errors.New("away") })
	_, err := n.add(l, rt)
	require.Equal(t, types.ErrTryAgainLater, cniErr(t, err).Code)
	require.Equal(t, index, n.links()[hostName(rt)].Attrs().Index)
	require.Len(t, n.server.Endpoints(), 1)
	n.setAwait(nil)
	n.mustAdd(l, rt)
}

func TestTerminatedAddUndoes(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	rt := runtimeConf("c1", pod.Path())
	waiting := make(chan struct{}, 1)
	n.setAwait(func(ctx context.Context, _ string, present bool) error {
		if !present {
			return nil
		}
		waiting <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	cmd := n.command("ADD", n.list("1.1.0", n.hostLocal(), nil), rt)
	require.NoError(t, n.do(cmd.Start))
	<-waiting
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Error(t, cmd.Wait())
	n.requireClean(pod)
}

// While the dataplane may send to the pod its address is not given to another;
// the next DEL or ADD finishes.
func TestFailedAddWhileTheDataplaneHoldsOn(t *testing.T) {
	for name, again := range map[string]bool{"then DEL": false, "then ADD": true} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			pod := newNS(t)
			l, rt := n.list("1.1.0", n.hostLocal(), nil), runtimeConf("c1", pod.Path())
			n.setAwait(func(_ context.Context, _ string, present bool) error {
				if present {
					return errors.New("boom")
				}
				return errors.New("still held")
			})
			_, err := n.add(l, rt)
			e := cniErr(t, err)
			require.Equal(t, types.ErrTryAgainLater, e.Code)
			require.Contains(t, e.Msg, "boom")
			require.Contains(t, e.Details, "still held")
			require.Empty(t, n.server.Endpoints())
			require.Len(t, n.addresses(), 2)
			require.Contains(t, n.links(), hostName(rt), "the mark of the remains")
			require.ErrorContains(t, n.del(l, rt), "still held")
			require.Len(t, n.addresses(), 2)

			n.setAwait(nil)
			if again {
				n.mustAdd(l, rt)
				require.NoError(t, n.check(l, rt))
				require.Len(t, n.addresses(), 2)
			}
			require.NoError(t, n.del(l, rt))
			n.requireClean(pod)
		})
	}
}

// The agent ends while it wires a pod: with its socket gone (in order) the ADD is
// undone, else the next DEL does it.
func TestAgentEndsDuringAdd(t *testing.T) {
	for name, stale := range map[string]bool{"in order": false, "crashed": true} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			pod := newNS(t)
			l, rt := n.list("1.1.0", n.hostLocal(), nil), runtimeConf("c1", pod.Path())
			waiting := make(chan struct{}, 1)
			n.setAwait(func(ctx context.Context, _ string, present bool) error {
				if present {
					waiting <- struct{}{}
				}
				<-ctx.Done()
				if stale {
					staleSocket(t, n.socket)
				}
				return ctx.Err()
			})
			failed := make(chan error, 1)
			go func() { _, err := n.add(l, rt); failed <- err }()
			<-waiting
			n.halt()
			err := <-failed
			require.Equal(t, types.ErrTryAgainLater, cniErr(t, err).Code)
			n.setAwait(nil)
			if stale {
				require.Len(t, n.addresses(), 2)
				require.Error(t, n.del(l, rt))
				n.start()
				require.NoError(t, n.del(l, rt))
			}
			n.requireClean(pod)
		})
	}
}

// A runtime that has closed the plugin's standard output never hears of the pod,
// so it must not be there.
func TestResultThatNobodyReads(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	cmd := n.command("ADD", n.list("1.1.0", n.hostLocal(), nil), runtimeConf("c1", pod.Path()))
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, r.Close())
	defer w.Close()
	cmd.Stdout = w
	var exit *exec.ExitError
	require.ErrorAs(t, n.do(cmd.Run), &exit)
	require.Equal(t, 1, exit.ExitCode(), "an orderly end: %s", exit)
	n.requireClean(pod)
}

func TestFailedAddLeavesNothing(t *testing.T) {
	refused := &api.Error{Object: "endpoint x", Field: "ips[0]", Reason: "no", Remedy: "give up"}
	tests := []struct {
		name    string
		prepare func(n *node, pod ns.NetNS)
		ipam    func(n *node) any
		netns   string
		code    uint
		says    []string
	}{
		{name: "agent not ready", prepare: func(n *node, _ ns.NetNS) {
			n.mu.Lock()
			n.ready = errors.New("no uplink")
			n.mu.Unlock()
		}, code: types.ErrTryAgainLater, says: []string{"no uplink"}},
		{name: "agent refuses", prepare: func(n *node, _ ns.NetNS) {
			n.setAwait(func(_ context.Context, _ string, present bool) error {
				if present {
					return refused
				}
				return nil
			})
		}, code: plugin.CodeAgentRefused, says: []string{"endpoint x", "ips[0]", "give up"}},
		{name: "dataplane fails", prepare: func(n *node, _ ns.NetNS) {
			n.setAwait(func(_ context.Context, _ string, present bool) error {
				if present {
					return errors.New("boom")
				}
				return nil
			})
		}, code: types.ErrTryAgainLater, says: []string{"boom"}},
		{name: "IPAM fails", ipam: func(n *node) any {
			return map[string]any{"type": fakeIPAM, "store": filepath.Join(n.dir, "fake"), "fail": "ADD"}
		}, code: types.ErrTryAgainLater, says: []string{fakeIPAM, "told to fail"}},
		{name: "IPAM missing", ipam: func(*node) any { return map[string]any{"type": "no-such-ipam"} },
			code: plugin.CodeIPAM, says: []string{"no-such-ipam"}},
		{name: "netns missing", netns: "/var/run/netns/sidewinder-no-such", code: types.ErrInvalidNetNS, says: []string{"sidewinder-no-such"}},
		{name: "interface taken", prepare: func(n *node, pod ns.NetNS) {
			require.NoError(n.tb, pod.Do(func(ns.NetNS) error {
				a := netlink.NewLinkAttrs()
				a.Name = "eth0"
				return netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: "other"})
			}))
		}, code: plugin.CodeInterface, says: []string{"eth0"}},
		{name: "route without an address", ipam: func(n *node) any {
			c := n.hostLocal()
			c["ranges"] = []any{[]any{map[string]any{"subnet": "10.42.0.0/24"}}}
			c["routes"] = []any{map[string]any{"dst": "2001:db8::/32"}}
			return c
		}, code: plugin.CodeIPAM, says: []string{"routes[0].dst", "2001:db8::/32"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			pod := newNS(t)
			var ipam any = n.hostLocal()
			if tt.ipam != nil {
				ipam = tt.ipam(n)
			}
			if tt.prepare != nil {
				tt.prepare(n, pod)
			}
			netns := pod.Path()
			if tt.netns != "" {
				netns = tt.netns
			}
			_, err := n.add(n.list("1.1.0", ipam, nil), runtimeConf("c1", netns))
			e := cniErr(t, err)
			require.Equal(t, tt.code, e.Code, e.Error())
			for _, s := range tt.says {
				require.Contains(t, e.Msg, s)
			}
			require.Empty(t, e.Details, "cleaning up worked")
			if tt.name == "interface taken" {
				require.NoError(t, pod.Do(func(ns.NetNS) error {
					l, err := netlink.LinkByName("eth0")
					require.NoError(t, err, "the other's interface is still there")
					return netlink.LinkDel(l)
				}))
			}
			n.requireClean(pod)
		})
	}
}

func TestNodesOwnNamespaceIsRefused(t *testing.T) {
	n := newNode(t)
	_, err := n.add(n.list("1.1.0", n.hostLocal(), nil), runtimeConf("c1", n.ns.Path()))
	require.Equal(t, types.ErrInvalidNetNS, cniErr(t, err).Code)
	n.requireClean()
}

func TestBadConfiguration(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	for field, conf := range map[string]map[string]any{
		"ipam.type": {"ipam": map[string]any{}},
		"ipam":      {"ipam": "host-local"},
		"socket":    {"socket": "relative.sock"},
		"mtu":       {"mtu": 500},
	} {
		t.Run(field, func(t *testing.T) {
			// libcni itself reads ipam, so the plugin is run by hand.
			l := n.list("1.1.0", n.hostLocal(), nil)
			var doc map[string]any
			require.NoError(t, json.Unmarshal(l.Plugins[0].Bytes, &doc))
			for k, v := range conf {
				doc[k] = v
			}
			raw, err := json.Marshal(doc)
			require.NoError(t, err)
			l.Plugins[0].Bytes = raw
			cmd := n.command("ADD", l, runtimeConf("c1", pod.Path()))
			var out []byte
			require.Error(t, n.do(func() (err error) { out, err = cmd.Output(); return err }))
			var e types.Error
			require.NoError(t, json.Unmarshal(out, &e), string(out))
			require.Equal(t, types.ErrInvalidNetworkConfig, e.Code)
			require.Contains(t, e.Msg, field)
			n.requireClean(pod)
		})
	}
}

func TestChainedIsRefused(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	prev := &current.Result{CNIVersion: "1.1.0", IPs: []*current.IPConfig{}}
	l := n.list("1.1.0", n.hostLocal(), map[string]any{"prevResult": prev})
	cmd := n.command("ADD", l, runtimeConf("c1", pod.Path()))
	var out []byte
	require.Error(t, n.do(func() (err error) { out, err = cmd.Output(); return err }))
	require.Contains(t, string(out), "prevResult")
	n.requireClean(pod)
}
