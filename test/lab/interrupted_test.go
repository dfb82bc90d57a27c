package lab_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/test/lab"
	"github.com/sidewinder-net/sidewinder/test/lab/ns"
)

// traces are what a pod has left on its node, wherever anything is kept.
func traces(t *testing.T, n *lab.Node, pod *lab.Pod, ips []netip.Addr) []string {
	t.Helper()
	found := filesNaming(t, n.RecordsDir(), pod.Name, "record")
	found = append(found, filesNaming(t, n.AddressesDir(), pod.Name, "address")...)
	h, err := ns.Handle(n.Name)
	require.NoError(t, err)
	defer h.Close()
	if _, err := h.LinkByName(pod.HostInterface()); err == nil {
		found = append(found, "link "+pod.HostInterface())
	} else {
		require.ErrorAs(t, err, &netlink.LinkNotFoundError{})
	}
	// Routes, in VPP too; no node has this locator.
	gone := lab.Departed{Locator: netip.MustParsePrefix("fcbb:bb00:dfff::/48")}
	for _, ip := range ips {
		gone.PodCIDRs = append(gone.PodCIDRs, netip.PrefixFrom(ip, ip.BitLen()))
	}
	routes, err := n.Residue(t.Context(), gone)
	require.NoError(t, err)
	found = append(found, routes...)
	return found
}

// filesNaming are the files of a folder that speak of a pod.
func filesNaming(t *testing.T, dir, pod, what string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var found []string
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		if strings.Contains(string(raw), pod) {
			found = append(found, what+" "+e.Name())
		}
	}
	return found
}

// addresses that the IPAM plugin has given to a pod.
func addresses(t *testing.T, n *lab.Node, pod *lab.Pod) []netip.Addr {
	t.Helper()
	var ips []netip.Addr
	for _, f := range filesNaming(t, n.AddressesDir(), pod.Name, "") {
		if ip, err := netip.ParseAddr(strings.TrimSpace(f)); err == nil {
			ips = append(ips, ip)
		}
	}
	return ips
}

// moment of an ADD at which the agent dies. It tells whether the ADD has come to
// it, and may prepare the agent's death.
type moment func(t *testing.T, n *lab.Node, h *netlink.Handle, pod *lab.Pod) bool

// unread: the pod's record is on its way to the agent, which dies before it has
// read it. The link is made after the agent was asked and before it is told.
func unread(t *testing.T, n *lab.Node, h *netlink.Handle, pod *lab.Pod) bool {
	t.Helper()
	if _, err := h.LinkByName(pod.HostInterface()); err != nil {
		return false
	}
	require.NoError(t, n.PauseAgent())
	require.True(t, holdsWithin(10*time.Second, func() bool { return len(addresses(t, n, pod)) == 2 }), "ADD is given no addresses")
	// What is left to do takes the plugin some milliseconds, but for the answer.
	time.Sleep(300 * time.Millisecond)
	return true
}

// withRecord: the agent has written the pod's record, and dies before it answers.
func withRecord(t *testing.T, n *lab.Node, _ *netlink.Handle, pod *lab.Pod) bool {
	t.Helper()
	return len(filesNaming(t, n.RecordsDir(), pod.Name, "record")) > 0
}

// breakOff has an ADD fail by killing the agent. It gives the pod, the addresses
// that the pod was given, and how the ADD failed.
func breakOff(t *testing.T, n *lab.Node, now moment) (*lab.Pod, []netip.Addr, error) {
	t.Helper()
	h, err := ns.Handle(n.Name)
	require.NoError(t, err)
	defer h.Close()
	// After an ADD that was faster there is another try.
	for range 10 {
		pod, err := n.NewPod()
		require.NoError(t, err)
		added := make(chan error, 1)
		go func() { added <- n.WirePod(context.WithoutCancel(t.Context()), pod) }()
		for end := time.Now().Add(20 * time.Second); !now(t, n, h, pod); time.Sleep(50 * time.Microsecond) {
			require.True(t, time.Now().Before(end), "the ADD does not come that far")
		}
		ips := addresses(t, n, pod)
		require.NoError(t, n.KillAgent())
		if err := <-added; err != nil {
			return pod, ips, err
		}
		require.NoError(t, n.StartAgent(t.Context()))
		require.NoError(t, n.DelPod(t.Context(), pod))
	}
	t.Skip("every ADD was done before the agent could be killed")
	return nil, nil, nil
}

// TestAgentDiesWhileAPodIsWired: an ADD that the agent's death breaks off fails,
// and leaves nothing that the agent's next start, and the next ADD or DEL of the
// pod, do not clean up.
func TestAgentDiesWhileAPodIsWired(t *testing.T) {
	t.Run("linux", func(t *testing.T) { breakOffADDs(t, newLab(t, lab.Options{Nodes: 2, Pods: 1, Paths: 1})) })
	t.Run("vpp", func(t *testing.T) {
		vpp := findVPP(t)
		breakOffADDs(t, newLab(t, lab.Options{Nodes: 2, Pods: 1, Paths: 1, VPP: vpp, Dataplane: func(int) string { return config.DataplaneVPP }}))
	})
}

func breakOffADDs(t *testing.T, l *lab.Lab) {
	t.Helper()
	n := l.Node(1)
	keeper := n.Pods()[0]
	for name, now := range map[string]moment{"unread": unread, "with its record": withRecord} {
		for _, again := range []bool{false, true} {
			next := map[bool]string{false: "DEL", true: "ADD"}[again]
			t.Run(name+", then "+next, func(t *testing.T) {
				pod, ips, err := breakOff(t, n, now)
				require.ErrorContains(t, err, n.Socket(), "the error names the agent's socket")
				require.NotEmpty(t, ips)
				// What the dataplane holds of the pod nobody knows.
				require.Error(t, n.UnwirePod(t.Context(), pod), "DEL waits for an agent")
				require.NoError(t, n.StartAgent(t.Context()))
				if again {
					require.NoError(t, n.WirePod(t.Context(), pod))
					require.Len(t, pod.IPs, 2)
					require.NoError(t, l.WaitConverged(t.Context()))
					requireReach(t, l)
				}
				require.NoError(t, n.UnwirePod(t.Context(), pod))
				require.Empty(t, traces(t, n, pod, slices.Concat(ips, pod.IPs)))
				require.NoError(t, n.DelPod(t.Context(), pod), "a repeated DEL")
				requireStatus(t, n, func(s status.Status) bool { return s.Endpoints == 1 && s.Reconcile.InSync }, "only the other pod is left")
				require.NotEmpty(t, traces(t, n, keeper, keeper.IPs), "the search finds what is there")
			})
		}
	}
	requireReach(t, l)
}
