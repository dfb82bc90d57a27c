package main_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/cni/api"
	"github.com/sidewinder-net/sidewinder/cni/plugin"
)

// hangSocket listens and never answers, as a hung agent does.
func hangSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
}

// staleSocket leaves a socket without a listener, as a crashed agent does.
func staleSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
}

func TestAgentDown(t *testing.T) {
	tests := map[string]struct {
		down   func(t *testing.T, path string)
		remedy string
		// delWorks: nobody can hold the pod any more, so DEL goes on alone.
		delWorks bool
	}{
		"no socket": {func(*testing.T, string) {}, "start the agent", true},
		"crashed":   {staleSocket, "restart the agent", false},
		"hung":      {hangSocket, "restart it if it hangs", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			pod, pod2 := newNS(t), newNS(t)
			l := n.list("1.1.0", n.hostLocal(), nil)
			rt, rt2 := runtimeConf("c1", pod.Path()), runtimeConf("c2", pod2.Path())
			n.mustAdd(l, rt)
			n.halt()
			require.NoFileExists(t, n.socket, "an agent that ends in order takes its socket along")
			tt.down(t, n.socket)

			within := func(f func() error) *types.Error {
				t.Helper()
				start := time.Now()
				err := f()
				require.Less(t, time.Since(start), time.Second)
				e := cniErr(t, err)
				require.Contains(t, e.Msg, n.socket)
				require.Contains(t, e.Msg, tt.remedy)
				return e
			}
			e := within(func() error { _, err := n.add(l, rt2); return err })
			require.Equal(t, types.ErrTryAgainLater, e.Code)
			require.Len(t, n.links(), 1, "nothing was made")
			require.Len(t, n.addresses(), 2)
			within(func() error { return n.check(l, rt) })
			e = within(func() error {
				return n.do(func() error { return n.cni.GetStatusNetworkList(context.Background(), l) })
			})
			require.Equal(t, types.ErrPluginNotAvailable, e.Code)

			if tt.delWorks {
				require.NoError(t, n.del(l, rt))
				require.Empty(t, n.links())
				require.Empty(t, n.addresses())
				return
			}
			e = within(func() error { return n.del(l, rt) })
			require.Equal(t, types.ErrTryAgainLater, e.Code)
			require.Len(t, n.links(), 1, "nothing is released while the dataplane may still send to it")
			require.Len(t, n.addresses(), 2)
		})
	}
}

// After an uninstalled or upgraded agent comes back, it knows by itself that a
// pod has gone meanwhile.
func TestAgentForgetsPodDeletedWithoutIt(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	l, rt := n.list("1.1.0", n.hostLocal(), nil), runtimeConf("c1", pod.Path())
	n.mustAdd(l, rt)
	n.halt()
	require.NoError(t, n.del(l, rt))
	closeNS(pod)
	n.start()
	n.requireClean()
}

// A pod deleted without the agent whose namespace is still there at the agent's
// start must not keep its address from the next one.
func TestAddressOfVanishedPodIsReused(t *testing.T) {
	n := newNode(t)
	pod, pod2 := newNS(t), newNS(t)
	ipam := n.hostLocal()
	ipam["ranges"] = []any{[]any{map[string]any{"subnet": "10.42.0.0/24", "rangeStart": "10.42.0.7", "rangeEnd": "10.42.0.7"}}}
	delete(ipam, "routes")
	l := n.list("1.1.0", ipam, nil)
	rt, rt2 := runtimeConf("c1", pod.Path()), runtimeConf("c2", pod2.Path())
	n.mustAdd(l, rt)
	n.halt()
	require.NoError(t, n.del(l, rt))
	n.start()
	require.Len(t, n.server.Problems(), 1)
	require.Contains(t, n.server.Problems()[0].String(), hostName(rt))
	n.mustAdd(l, rt2)
	require.Empty(t, n.server.Problems())
	require.Len(t, n.server.Endpoints(), 1)
}

func TestAgentRestartKeepsPods(t *testing.T) {
	n := newNode(t)
	l := n.list("1.1.0", n.hostLocal(), nil)
	pod, pod2 := newNS(t), newNS(t)
	rt, rt2 := runtimeConf("c1", pod.Path()), runtimeConf("c2", pod2.Path())
	n.mustAdd(l, rt)
	before := n.server.Endpoints()
	n.halt()
	n.start()
	require.Equal(t, before, n.server.Endpoints())
	require.Empty(t, n.server.Problems())
	require.NoError(t, n.check(l, rt))
	n.mustAdd(l, rt2)
	require.NoError(t, n.del(l, rt))
	require.NoError(t, n.del(l, rt2))
	n.requireClean(pod, pod2)
}

func TestDel(t *testing.T) {
	tests := map[string]func(t *testing.T, n *node, pod ns.NetNS, rt *libcni.RuntimeConf){
		"never added before": nil,
		"agent has forgotten": func(t *testing.T, n *node, _ ns.NetNS, rt *libcni.RuntimeConf) {
			require.NoError(t, n.client().DeleteEndpoint(context.Background(), rt.ContainerID, rt.IfName))
		},
		"namespace is gone": func(_ *testing.T, _ *node, pod ns.NetNS, _ *libcni.RuntimeConf) { closeNS(pod) },
		"no namespace given": func(_ *testing.T, _ *node, _ ns.NetNS, rt *libcni.RuntimeConf) {
			rt.NetNS = ""
		},
		"link is gone": func(t *testing.T, n *node, _ ns.NetNS, rt *libcni.RuntimeConf) {
			require.NoError(t, n.do(func() error { return netlink.LinkDel(n.links()[hostName(rt)]) }))
		},
		"address is released": func(t *testing.T, n *node, _ ns.NetNS, _ *libcni.RuntimeConf) {
			for _, a := range n.addresses() {
				require.NoError(t, os.Remove(filepath.Join(n.dir, "ipam", "net1", a)))
			}
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			pod := newNS(t)
			l, rt := n.list("1.1.0", n.hostLocal(), nil), runtimeConf("c1", pod.Path())
			if prepare != nil {
				n.mustAdd(l, rt)
				prepare(t, n, pod, rt)
			}
			require.NoError(t, n.del(l, rt))
			n.requireClean()
			require.NoError(t, n.del(l, rt), "once more")
		})
	}
}

// A failed DEL is not a lost address: the runtime repeats it.
func TestDelWaitsForTheDataplane(t *testing.T) {
	n := newNode(t)
	pod := newNS(t)
	l, rt := n.list("1.1.0", n.hostLocal(), nil), runtimeConf("c1", pod.Path())
	n.mustAdd(l, rt)
	n.setAwait(func(_ context.Context, _ string, present bool) error { return fmt.Errorf("present %v: stuck", present) })
	for range 2 {
		e := cniErr(t, n.del(l, rt))
		require.Equal(t, types.ErrTryAgainLater, e.Code)
		require.Contains(t, e.Msg, "stuck")
		require.Len(t, n.addresses(), 2)
	}
	n.setAwait(nil)
	require.NoError(t, n.del(l, rt))
	n.requireClean(pod)
}

func TestCheckFindsDifferences(t *testing.T) {
	inPod := func(f func(l netlink.Link) error) func(*testing.T, *node, ns.NetNS, *libcni.RuntimeConf) {
		return func(t *testing.T, _ *node, pod ns.NetNS, _ *libcni.RuntimeConf) {
			require.NoError(t, pod.Do(func(ns.NetNS) error {
				l, err := netlink.LinkByName("eth0")
				require.NoError(t, err)
				return f(l)
			}))
		}
	}
	tests := map[string]struct {
		spoil func(t *testing.T, n *node, pod ns.NetNS, rt *libcni.RuntimeConf)
		says  string
	}{
		"address": {inPod(func(l netlink.Link) error {
			a, err := netlink.AddrList(l, netlink.FAMILY_V4)
			if err != nil {
				return err
			}
			return netlink.AddrDel(l, &a[0])
		}), "10.42.0.2/32 is missing"},
		"route": {inPod(func(l netlink.Link) error {
			_, dst, _ := net.ParseCIDR("192.0.2.0/24")
			return netlink.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst})
		}), "192.0.2.0/24"},
		"IPv6 default route": {inPod(func(l netlink.Link) error {
			_, dst, _ := net.ParseCIDR("::/0")
			return netlink.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst})
		}), "::/0"},
		"neighbour": {inPod(func(l netlink.Link) error {
			return netlink.NeighDel(&netlink.Neigh{LinkIndex: l.Attrs().Index, Family: netlink.FAMILY_V6, IP: api.GatewayIPv6.AsSlice()})
		}), "neighbours"},
		"MTU": {inPod(func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1300) }), "MTU 1300"},
		"MAC": {inPod(func(l netlink.Link) error {
			return netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 1})
		}), "02:00:00:00:00:01"},
		"host end": {func(t *testing.T, n *node, _ ns.NetNS, rt *libcni.RuntimeConf) {
			require.NoError(t, n.do(func() error { return netlink.LinkSetDown(n.links()[hostName(rt)]) }))
		}, "is down"},
		"record": {func(t *testing.T, n *node, _ ns.NetNS, rt *libcni.RuntimeConf) {
			require.NoError(t, n.client().DeleteEndpoint(context.Background(), rt.ContainerID, rt.IfName))
		}, "does not know it"},
		"IPAM": {func(t *testing.T, n *node, _ ns.NetNS, _ *libcni.RuntimeConf) {
			require.NoError(t, os.RemoveAll(filepath.Join(n.dir, "ipam", "net1")))
		}, "host-local"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			pod := newNS(t)
			l, rt := n.list("1.1.0", n.hostLocal(), nil), runtimeConf("c1", pod.Path())
			n.mustAdd(l, rt)
			require.NoError(t, n.check(l, rt))
			tt.spoil(t, n, pod, rt)
			e := cniErr(t, n.check(l, rt))
			require.GreaterOrEqual(t, e.Code, uint(100))
			require.Contains(t, e.Error(), tt.says)
		})
	}
}

func TestStatus(t *testing.T) {
	n := newNode(t)
	statusOf := func(l *libcni.NetworkConfigList) error {
		return n.do(func() error { return n.cni.GetStatusNetworkList(context.Background(), l) })
	}
	require.NoError(t, statusOf(n.list("1.1.0", n.hostLocal(), nil)))
	e := cniErr(t, statusOf(n.list("1.1.0", map[string]any{"type": fakeIPAM, "fail": "STATUS"}, nil)))
	require.Equal(t, types.ErrPluginNotAvailable, e.Code)
	require.Contains(t, e.Msg, fakeIPAM)
	n.mu.Lock()
	n.ready = fmt.Errorf("no route to the underlay")
	n.mu.Unlock()
	e = cniErr(t, statusOf(n.list("1.1.0", n.hostLocal(), nil)))
	require.Equal(t, types.ErrPluginNotAvailable, e.Code)
	require.Contains(t, e.Msg, "no route to the underlay")
}

func TestGC(t *testing.T) {
	n := newNode(t)
	l := n.list("1.1.0", n.hostLocal(), nil)
	other := n.network("net2", "1.1.0", "sidewinder", map[string]any{"type": fakeIPAM, "store": filepath.Join(n.dir, "fake")}, nil)
	pods := map[string]*libcni.RuntimeConf{}
	for _, id := range []string{"keep", "stale", "linkonly"} {
		pods[id] = runtimeConf(id, newNS(t).Path())
		n.mustAdd(l, pods[id])
	}
	pods["foreign"] = runtimeConf("foreign", newNS(t).Path())
	n.mustAdd(other, pods["foreign"])
	require.NoError(t, n.client().DeleteEndpoint(context.Background(), "linkonly", "eth0"))
	// Named like ours, but not made by us.
	require.NoError(t, n.do(func() error {
		a := netlink.NewLinkAttrs()
		a.Name = "sw0123456789a"
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: "swpeer"})
	}))

	// By hand, because libcni would DEL what its own cache holds before.
	l.Plugins[0].Bytes = mustJSON(t, l.Plugins[0].Bytes, "cni.dev/valid-attachments", []types.GCAttachment{{ContainerID: "keep", IfName: "eth0"}})
	cmd := n.command("GC", l, runtimeConf("", ""))
	require.NoError(t, n.do(func() error {
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return nil
	}))
	links := n.links()
	require.Contains(t, links, hostName(pods["keep"]))
	require.Contains(t, links, hostName(pods["foreign"]))
	require.Contains(t, links, "sw0123456789a")
	require.NotContains(t, links, hostName(pods["stale"]))
	require.NotContains(t, links, hostName(pods["linkonly"]))
	require.Len(t, n.server.Endpoints(), 2)
	require.Len(t, n.addresses(), 3, "two of keep, one file of foreign")
	require.NoError(t, n.check(n.list("1.1.0", n.hostLocal(), nil), pods["keep"]))

	l = n.list("1.1.0", n.hostLocal(), nil)
	cmd = n.command("GC", l, runtimeConf("", ""))
	require.Error(t, n.do(func() error {
		out, err := cmd.Output()
		require.Contains(t, string(out), "valid-attachments")
		return err
	}), "no list is not an empty list")
	require.Len(t, n.server.Endpoints(), 2)

	require.NoError(t, n.do(func() error { return n.cni.GCNetworkList(context.Background(), l, &libcni.GCArgs{}) }))
	require.Len(t, n.server.Endpoints(), 1)
	require.NotContains(t, n.links(), hostName(pods["keep"]))
}

func TestVersion(t *testing.T) {
	n := newNode(t)
	info, err := n.cni.GetVersionInfo(context.Background(), "sidewinder")
	require.NoError(t, err)
	require.Equal(t, plugin.Versions, info.SupportedVersions())
}
