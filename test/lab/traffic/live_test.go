package traffic_test

import (
	"net/netip"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/test/lab"
	"github.com/sidewinder-net/sidewinder/test/lab/fabric"
	"github.com/sidewinder-net/sidewinder/test/lab/ns"
	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
	"github.com/sidewinder-net/sidewinder/test/lab/tree"
)

func TestMain(m *testing.M) { lab.Main(m) }

// twoNodes are joined by one path.
func twoNodes(t *testing.T) {
	t.Helper()
	if _, ok := tree.Current(); !ok {
		t.Skip("needs network namespaces: root or user namespaces")
	}
	f, err := fabric.New(1, 1500)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	require.NoError(t, f.AddNode(1, "node1", false))
	require.NoError(t, f.AddNode(2, "node2", false))
	// Neighbours get to know each other.
	c, err := traffic.StartConversation("node1", "node2", fabric.NodeAddr(2), 10)
	require.NoError(t, err)
	require.NoError(t, c.Stop().Err)
}

// busy keeps every processor at work until the test ends.
func busy(t *testing.T) {
	t.Helper()
	for range runtime.NumCPU() {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		require.NoError(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
}

// outage cuts the only path, and tells when.
func outage(t *testing.T, length time.Duration) traffic.Window {
	t.Helper()
	h, err := ns.Handle("spine1")
	require.NoError(t, err)
	defer h.Close()
	to := route(t, h)
	// The route and not the link: a link that was down takes its time to come up.
	require.NoError(t, h.RouteDel(&to))
	w := traffic.Window{From: time.Now()}
	time.Sleep(length)
	w.To = time.Now()
	require.NoError(t, h.RouteAdd(&to))
	return w
}

// route is the spine's way to the second node.
func route(t *testing.T, h *netlink.Handle) netlink.Route {
	t.Helper()
	routes, err := h.RouteList(nil, netlink.FAMILY_V6)
	require.NoError(t, err)
	for _, r := range routes {
		if r.Dst != nil && r.Dst.String() == fabric.NodePrefix(2).String() {
			return r
		}
	}
	t.Fatal("the spine has no route to node 2")
	return netlink.Route{}
}

// TestStreamMeasuresAnOutage: at 1,000 packets a second, on a machine that is
// kept busy, the loss and the gap are those of the outage.
func TestStreamMeasuresAnOutage(t *testing.T) {
	twoNodes(t)
	busy(t)
	s, err := traffic.StartStream("node1", "node2", fabric.NodeAddr(2), 1000)
	require.NoError(t, err)
	begin := time.Now()
	time.Sleep(time.Second)
	before := time.Now()
	cut := outage(t, 200*time.Millisecond)
	time.Sleep(300 * time.Millisecond)
	took := time.Since(begin)
	r := s.Stop()
	t.Logf("%+v of an outage of %s", r, cut.To.Sub(cut.From))
	require.Equal(t, r.Sent, r.Received+r.Lost)
	require.InDelta(t, took.Seconds()*1000, r.Sent, took.Seconds()*200, "the rate is kept")
	require.InDelta(t, s.Result(cut).Sent, r.Lost, 20, "those sent meanwhile, and some on the way")
	require.InDelta(t, cut.To.Sub(cut.From).Seconds(), r.MaxGap.Seconds(), 0.050)
	quiet := s.Result(traffic.Window{To: before})
	t.Logf("before: %+v", quiet)
	require.Zero(t, quiet.Lost)
	require.NoError(t, s.ClockMoved())
}

// TestConversationOutlivesAnOutage: nothing is reset or lost, and the gap is told.
func TestConversationOutlivesAnOutage(t *testing.T) {
	twoNodes(t)
	c, err := traffic.StartConversation("node1", "node2", fabric.NodeAddr(2), 200)
	require.NoError(t, err)
	time.Sleep(300 * time.Millisecond)
	before := time.Now()
	cut := outage(t, 250*time.Millisecond)
	time.Sleep(700 * time.Millisecond)
	r := c.Stop()
	t.Logf("%+v of an outage of %s", r, cut.To.Sub(cut.From))
	require.NoError(t, r.Err)
	require.Zero(t, r.Resets)
	require.Equal(t, r.Sent, r.Received)
	require.GreaterOrEqual(t, r.MaxGap, 200*time.Millisecond)
	require.Less(t, c.Result(traffic.Window{To: before}).MaxGap, 200*time.Millisecond)
}

func TestPing(t *testing.T) {
	twoNodes(t)
	p, err := traffic.StartPing("node1", fabric.NodeAddr(2), 200, 1)
	require.NoError(t, err)
	other, err := traffic.StartPing("node1", fabric.NodeAddr(2), 200, 2)
	require.NoError(t, err)
	time.Sleep(200 * time.Millisecond)
	cut := outage(t, 200*time.Millisecond)
	time.Sleep(200 * time.Millisecond)
	for _, ping := range []*traffic.Ping{p, other} {
		r := ping.Stop()
		require.InDelta(t, ping.Result(cut).Sent, r.Lost, 5)
		require.Positive(t, r.Lost)
		require.Greater(t, r.Received, 20)
		require.Zero(t, r.Duplicates)
	}
	four, err := traffic.StartPing("node1", netip.MustParseAddr("127.0.0.1"), 200, 1)
	require.NoError(t, err)
	time.Sleep(100 * time.Millisecond)
	r := four.Stop()
	require.Zero(t, r.Lost)
	require.Greater(t, r.Received, 5)
}
