package lab_test

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/test/lab"
	"github.com/sidewinder-net/sidewinder/test/lab/ns"
	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
)

// edit replaces text in one of the lab's object files, as an administrator does.
func edit(t *testing.T, l *lab.Lab, file, old, replacement string) {
	t.Helper()
	path := filepath.Join(l.ObjectsDir(), file)
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(raw), old)
	tmp := filepath.Join(l.ObjectsDir(), "."+file)
	require.NoError(t, os.WriteFile(tmp, []byte(strings.ReplaceAll(string(raw), old, replacement)), 0o644))
	require.NoError(t, os.Rename(tmp, path))
}

// requireStatus waits until a node's status is as wanted.
func requireStatus(t *testing.T, n *lab.Node, want func(status.Status) bool, what string) {
	t.Helper()
	var last status.Status
	ok := holdsWithin(15*time.Second, func() bool {
		s, err := n.Status(t.Context())
		last = s
		return err == nil && want(s)
	})
	require.True(t, ok, "%s: %s; the status is %+v", n.Name, what, last)
}

// holdsWithin tells whether a condition comes true before the time is over.
func holdsWithin(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}

// requireFlow waits until so many more packets of a stream have arrived.
func requireFlow(t *testing.T, s *traffic.Stream, packets int) {
	t.Helper()
	want := s.Received() + packets
	require.True(t, holdsWithin(15*time.Second, func() bool { return s.Received() >= want }), "%d of %d packets have arrived", s.Received(), want)
}

// steered are the prefixes that a node steers to another.
func steered(s status.Status, endpoint string) []string {
	var out []string
	for _, p := range s.Policies {
		if p.Endpoint == endpoint {
			out = append(out, p.Prefixes...)
		}
	}
	return out
}

// TestNodeChangesItsPrefixes: the old ones are gone from the peers, the pods that
// still have addresses of the old ones are reached one by one.
func TestNodeChangesItsPrefixes(t *testing.T) {
	l := newLab(t, lab.Options{Nodes: 2, Pods: 1, Paths: 1})
	n1 := l.Node(1)
	edit(t, l, "node-node2.yaml", "10.244.2.0/24", "10.244.77.0/24")
	pod, ok := l.Node(2).Pods()[0].Addr(4)
	require.True(t, ok)
	requireStatus(t, n1, func(s status.Status) bool {
		got := steered(s, "node2")
		return s.Reconcile.InSync && slices.Contains(got, "10.244.77.0/24") && slices.Contains(got, pod.String()+"/32") && !slices.Contains(got, "10.244.2.0/24")
	}, "the new prefix and the pod by itself are steered")
	require.NoError(t, l.WaitConverged(t.Context()))
	requireReach(t, l)
	found, err := n1.Residue(t.Context(), lab.Departed{Locator: netip.MustParsePrefix("fcbb:bb00:ff::/48"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/25")}})
	require.NoError(t, err)
	for _, line := range found {
		require.Contains(t, line, pod.String(), "nothing but the pod's own entry is left")
	}
}

// TestNodeMovesToAnotherAddress: its facts change, and peers follow.
func TestNodeMovesToAnotherAddress(t *testing.T) {
	l := newLab(t, lab.Options{Nodes: 2, Pods: 1, Paths: 1})
	n2 := l.Node(2)
	old := n2.Underlay()
	moved := old.Next()
	require.NoError(t, ns.Do(n2.Name, func() error {
		link, err := netlink.LinkByName("uplink0")
		if err != nil {
			return err
		}
		for _, c := range []struct {
			ip netip.Addr
			do func(netlink.Link, *netlink.Addr) error
		}{{moved, netlink.AddrAdd}, {old, netlink.AddrDel}} {
			a := &netlink.Addr{IPNet: &net.IPNet{IP: c.ip.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: syscall.IFA_F_NODAD}
			if err := c.do(link, a); err != nil {
				return err
			}
		}
		return nil
	}))
	edit(t, l, "node-node2.yaml", old.String(), moved.String())
	requireStatus(t, n2, func(s status.Status) bool { return s.EncapSource == moved.String() && s.Reconcile.InSync }, "it uses the new address")
	require.NoError(t, l.WaitConverged(t.Context()))
	requireReach(t, l)
	raw, err := os.ReadFile(filepath.Join(l.ObjectsDir(), "srv6node-node2.yaml"))
	require.NoError(t, err)
	require.Contains(t, string(raw), moved.String())
}

// TestBrokenObjectsDisturbNothing: half-written and contradictory files are told
// with file and line, and traffic goes on.
func TestBrokenObjectsDisturbNothing(t *testing.T) {
	l := newLab(t, lab.Options{Nodes: 2, Pods: 1, Paths: 1})
	n1 := l.Node(1)
	to := l.Node(2).Pods()[0]
	addr, ok := to.Addr(4)
	require.True(t, ok)
	s, err := traffic.StartStream(n1.Pods()[0].Name, to.Name, addr, 500)
	require.NoError(t, err)

	edit(t, l, "node-node2.yaml", "10.244.2.0/24", "10.244.2.0/33")
	requireStatus(t, n1, func(s status.Status) bool {
		return slices.ContainsFunc(s.Source.Errors, func(e string) bool {
			return strings.Contains(e, "node-node2.yaml:") && strings.Contains(e, "spec.podCIDR") && strings.Contains(e, "10.244.2.0/33")
		})
	}, "the wrong prefix is told with its file and field")
	require.NoError(t, os.WriteFile(filepath.Join(l.ObjectsDir(), "half.yaml"), []byte("kind: Node\nmetadata: {name: [\n"), 0o644))
	requireStatus(t, n1, func(s status.Status) bool {
		return slices.ContainsFunc(s.Source.Errors, func(e string) bool { return strings.Contains(e, "half.yaml:") })
	}, "the half-written file is told")
	requireStatus(t, n1, func(s status.Status) bool { return slices.Contains(steered(s, "node2"), "10.244.2.0/24") }, "the last good state is in force")
	requireFlow(t, s, 250)

	edit(t, l, "node-node2.yaml", "10.244.2.0/33", "10.244.2.0/24")
	require.NoError(t, os.Remove(filepath.Join(l.ObjectsDir(), "half.yaml")))
	requireStatus(t, n1, func(s status.Status) bool { return len(s.Source.Errors) == 0 }, "no error is left")
	requireFlow(t, s, 50)
	r := s.Stop()
	require.Zero(t, r.Lost)
	require.Greater(t, r.Sent, 300)
	requireReach(t, l)
}
