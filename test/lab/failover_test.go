package lab_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/test/lab"
	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
)

// newVPPLab has VPP on every node.
func newVPPLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	if !o.WithoutVPP {
		o.VPP = findVPP(t)
	}
	o.Nodes, o.Paths = 2, 1
	o.Dataplane = func(int) string { return config.DataplaneVPP }
	return newLab(t, o)
}

// watch starts traffic that ends with the test.
func watch(t *testing.T, l *lab.Lab) *lab.Watch {
	t.Helper()
	w, err := lab.StartWatch(l.Node(1), l.Node(2))
	require.NoError(t, err)
	t.Cleanup(func() { w.Stop() })
	return w
}

// requireActive wants VPP or the kernel to carry a node's traffic.
func requireActive(t *testing.T, n *lab.Node, want string) {
	t.Helper()
	requireStatus(t, n, func(s status.Status) bool { return s.Ready && s.Dataplane.Active == want }, want+" carries the traffic")
}

// vppPackets are the packets that a link's shim has given VPP.
func vppPackets(t *testing.T, n *lab.Node, link string) uint64 {
	t.Helper()
	s, err := n.Status(t.Context())
	require.NoError(t, err)
	i := slices.IndexFunc(s.Dataplane.Links, func(l status.Link) bool { return l.Name == link })
	require.GreaterOrEqual(t, i, 0, "%s has no shim on %s: %+v", n.Name, link, s.Dataplane.Links)
	return s.Dataplane.Links[i].Packets["vpp"]
}

// requireVPPGets wants a link's packets to reach VPP now.
func requireVPPGets(t *testing.T, n *lab.Node, link string) {
	t.Helper()
	before := vppPackets(t, n, link)
	require.True(t, holdsWithin(10*time.Second, func() bool { return vppPackets(t, n, link) > before+20 }),
		"%s: VPP gets no packets of %s", n.Name, link)
}

// TestVPPFails: VPP is killed, stopped and restarted under traffic, a few times
// each. A test may share its machine with others, and a gap is one of the machine
// then: `sidewinder-lab failover` holds gaps and losses against their limits.
func TestVPPFails(t *testing.T) {
	l := newVPPLab(t, lab.Options{Pods: 1})
	n := l.Node(1)
	w := watch(t, l)
	requireVPPGets(t, n, "uplink0")
	type event struct {
		what lab.Disturbance
		in   traffic.Window
	}
	var events []event
	for _, what := range []lab.Disturbance{
		lab.DisturbKill, lab.DisturbStop, lab.DisturbRestart, lab.DisturbKill, lab.DisturbRestart,
	} {
		e := event{what: what}
		e.in.From = time.Now()
		time.Sleep(20 * time.Millisecond)
		begin := time.Now()
		require.NoError(t, n.Disturb(t.Context(), what))
		s, asked, err := n.WaitVPPBack(t.Context(), begin)
		require.NoError(t, err, what)
		require.False(t, asked, "the manager brings VPP back by itself")
		t.Logf("%s: VPP carries the traffic again after %s, its %d. change", what, time.Since(begin).Round(time.Millisecond), s.Dataplane.Switches)
		time.Sleep(300 * time.Millisecond)
		e.in.To = time.Now()
		events = append(events, e)
		requireVPPGets(t, n, n.Pods()[0].HostInterface())
	}
	m, err := n.Manager()
	require.NoError(t, err)
	require.Equal(t, 3, m.Deaths, "a planned restart is no death")
	w.Stop()
	for _, e := range events {
		r := w.Result(e.in)
		t.Logf("%-8s %+v", e.what, r)
		require.NoError(t, lab.BoundsOf(e.what).Check(r, 0), e.what)
	}
	requireReach(t, l)
}

// TestPodsComeAndGoWithoutVPP: ADD and DEL go through the kernel while VPP is
// down, and VPP has them when it is back.
func TestPodsComeAndGoWithoutVPP(t *testing.T) {
	l := newVPPLab(t, lab.Options{Pods: 2})
	ctx := t.Context()
	n := l.Node(1)
	gone := n.Pods()[1]
	w := watch(t, l)
	require.NoError(t, n.StopVPP())
	requireActive(t, n, config.DataplaneLinux)

	added, err := n.AddPod(ctx)
	require.NoError(t, err)
	require.NoError(t, n.DelPod(ctx, gone))
	require.NoError(t, l.WaitConverged(ctx))
	require.Empty(t, traces(t, n, gone, gone.IPs))

	require.NoError(t, n.StartVPP(ctx))
	require.NoError(t, l.WaitConverged(ctx))
	requireActive(t, n, config.DataplaneVPP)
	requireVPPGets(t, n, n.Pods()[0].HostInterface())
	// Before much other traffic comes.
	r := w.Stop()
	t.Logf("%+v", r)
	require.NoError(t, lab.BoundsOf(lab.DisturbRestart).Check(r, 0), "VPP was stopped in order, and taken back")

	requireReach(t, l)
	require.Positive(t, vppPackets(t, n, added.HostInterface()), "VPP carries the new pod's traffic")
	require.Empty(t, traces(t, n, gone, gone.IPs))
}

// TestAgentRestartsWhileVPPCarries: VPP goes on alone, and the next agent leaves
// it at that.
func TestAgentRestartsWhileVPPCarries(t *testing.T) {
	l := newVPPLab(t, lab.Options{Pods: 1})
	ctx := t.Context()
	n := l.Node(1)
	w := watch(t, l)
	for range 2 {
		before := vppPackets(t, n, "uplink0")
		require.NoError(t, n.KillAgent())
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, n.StartAgent(ctx))
		require.NoError(t, l.WaitConverged(ctx))
		require.Greater(t, vppPackets(t, n, "uplink0"), before+500, "VPP got the packets meanwhile")
	}
	r := w.Stop()
	t.Logf("%+v", r)
	require.NoError(t, lab.BoundsOf(lab.DisturbRestart).Check(r, 0))
}

// TestAgentAndVPPDieTogether: the kernel carries the traffic with nobody's help.
func TestAgentAndVPPDieTogether(t *testing.T) {
	l := newVPPLab(t, lab.Options{Pods: 1})
	ctx := t.Context()
	n := l.Node(1)
	w := watch(t, l)
	require.NoError(t, n.KillAgent())
	from := time.Now()
	_, err := n.KillVPP()
	require.NoError(t, err)
	// Nobody tells a VPP that comes back what to do: the kernel goes on.
	time.Sleep(3 * time.Second)
	alone := traffic.Window{From: from, To: time.Now()}
	require.NoError(t, n.StartAgent(ctx))
	require.NoError(t, l.WaitConverged(ctx))
	requireVPPGets(t, n, n.Pods()[0].HostInterface())
	r := w.Stop()
	t.Logf("alone: %+v", w.Result(alone))
	t.Logf("in all: %+v", r)
	require.NoError(t, lab.Limits{Lost: 50}.Check(r, 0))
	requireReach(t, l)
}

// TestNodeWithoutItsVPP: where VPP is wanted and is not there, pods work by the
// kernel, and status says why. When it comes, it takes over.
func TestNodeWithoutItsVPP(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: XDP programs")
	}
	l := newVPPLab(t, lab.Options{Pods: 2, WithoutVPP: true})
	ctx := t.Context()
	n := l.Node(1)
	requireReach(t, l)
	s, err := n.Status(ctx)
	require.NoError(t, err)
	require.True(t, s.Ready)
	require.Equal(t, config.DataplaneVPP, s.Dataplane.Kind)
	require.Equal(t, config.DataplaneLinux, s.Dataplane.Active)
	require.Contains(t, strings.ToLower(s.Dataplane.Reason), "vpp")
	t.Logf("the reason: %s", s.Dataplane.Reason)
	_, err = n.AddPod(ctx)
	require.NoError(t, err)
	requireReach(t, l)
}

// TestVPPComesLater: a node that worked without VPP hands its traffic over.
func TestVPPComesLater(t *testing.T) {
	vpp := findVPP(t)
	l := newVPPLab(t, lab.Options{Pods: 2, WithoutVPP: true, VPP: vpp})
	w := watch(t, l)
	for _, n := range l.Nodes() {
		require.NoError(t, n.StartVPP(t.Context()))
		require.NoError(t, l.WaitConverged(t.Context()))
		requireVPPGets(t, n, n.Pods()[0].HostInterface())
	}
	requireReach(t, l)
	r := w.Stop()
	t.Logf("%+v", r)
	require.NoError(t, lab.BoundsOf(lab.DisturbRestart).Check(r, 0))
}

// TestCopies: with af_packet on uplinks, on pods, or on both, the kernel gets
// every frame as well. It drops its copies of what VPP carries, so nothing
// arrives twice, and takes over when VPP dies.
func TestCopies(t *testing.T) {
	for _, o := range []lab.Options{
		{Pods: 1, UplinkDriver: config.DriverAFPacket, PodDriver: config.DriverAFPacket},
		{Pods: 1, UplinkDriver: config.DriverAFPacket},
		{Pods: 1, PodDriver: config.DriverAFPacket},
	} {
		t.Run("uplinks "+o.UplinkDriver+", pods "+o.PodDriver, func(t *testing.T) {
			l := newVPPLab(t, o)
			n := l.Node(1)
			requireReach(t, l)
			from, to := n.Pods()[0], l.Node(2).Pods()[0]
			s, err := traffic.StartStream(from.Name, to.Name, to.IPs[0], 200)
			require.NoError(t, err)
			time.Sleep(500 * time.Millisecond)
			r := s.Stop()
			require.Zero(t, r.Duplicates, "the kernel carried what VPP carried as well: %+v", r)
			require.Greater(t, r.Received, 50)
			begin := time.Now()
			require.NoError(t, n.Disturb(t.Context(), lab.DisturbKill))
			requireReach(t, l)
			_, _, err = n.WaitVPPBack(t.Context(), begin)
			require.NoError(t, err)
			requireReach(t, l)
		})
	}
}
