package lab_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/test/lab"
	"github.com/sidewinder-net/sidewinder/test/lab/fabric"
	"github.com/sidewinder-net/sidewinder/test/lab/ns"
	"github.com/sidewinder-net/sidewinder/test/lab/standin"
	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// shimmed is a kernel node whose uplink and first pod have the shim, with a
// forwarder in VPP's place.
type shimmed struct {
	t           *testing.T
	node        *lab.Node
	uplink, pod *xdp.Shim
	tables      *xdp.Tables
	conf        standin.Config
	forwarder   *standin.Forwarder
}

func shim(t *testing.T, n, other *lab.Node) *shimmed {
	t.Helper()
	s := &shimmed{t: t, node: n}
	pod := n.Pods()[0]
	// Frames that reach AF_XDP have whole checksums, as the CNI plugin sees to
	// on a node with VPP.
	require.NoError(t, fabric.OffloadsOff(pod.Name, "eth0"))
	require.NoError(t, fabric.WholeFrames(n.ID))

	st, err := n.Status(t.Context())
	require.NoError(t, err)
	far, err := other.Status(t.Context())
	require.NoError(t, err)
	s.conf = standin.Config{
		PodIPs: pod.IPs, Source: netip.MustParseAddr(st.EncapSource), HopLimit: 64, SIDs: map[netip.Prefix]netip.Addr{},
		Uplink: standin.Link{Peer: mac(t, fabric.TorName(n.ID), "node")},
		Pod:    standin.Link{Peer: mac(t, pod.Name, "eth0")},
	}
	uplinkTable, podTable := map[netip.Prefix]xdp.Verdict{netip.MustParsePrefix(st.Locator): xdp.VerdictKernel}, map[netip.Prefix]xdp.Verdict{}
	for _, sid := range st.SIDs {
		if a, err := netip.ParseAddr(strings.TrimSuffix(sid.SID, "/128")); err == nil {
			uplinkTable[netip.PrefixFrom(a, 128)] = xdp.VerdictVPPInner
		}
	}
	for _, p := range other.PodCIDRs() {
		podTable[p] = xdp.VerdictVPP
		for _, sid := range far.SIDs {
			if strings.HasSuffix(sid.Behaviour, map[bool]string{true: "DT4", false: "DT6"}[p.Addr().Is4()]) {
				s.conf.SIDs[p] = netip.MustParseAddr(strings.TrimSuffix(sid.SID, "/128"))
			}
		}
	}
	for _, ip := range pod.IPs {
		podTable[netip.PrefixFrom(ip, ip.BitLen())] = xdp.VerdictVPP
	}
	s.tables, err = xdp.NewTables(xdp.TablesOptions{})
	require.NoError(t, err)
	require.NoError(t, s.tables.SetUplink(uplinkTable))
	require.NoError(t, s.tables.SetPods(podTable))
	s.inNode(func() error {
		for _, l := range []struct {
			name string
			into *standin.Link
			shim **xdp.Shim
		}{{fabric.UplinkName, &s.conf.Uplink, &s.uplink}, {pod.HostInterface(), &s.conf.Pod, &s.pod}} {
			link, err := netlink.LinkByName(l.name)
			if err != nil {
				return err
			}
			l.into.Index, l.into.MAC = link.Attrs().Index, link.Attrs().HardwareAddr
			if *l.shim, err = xdp.Attach(link.Attrs().Index); err != nil {
				return err
			}
		}
		return nil
	})
	t.Cleanup(s.close)
	return s
}

func (s *shimmed) close() {
	if s.forwarder != nil {
		require.NoError(s.t, s.forwarder.Close())
	}
	s.inNode(func() error {
		for _, x := range []*xdp.Shim{s.uplink, s.pod} {
			if err := x.Detach(); err != nil {
				return err
			}
			if err := x.Close(); err != nil {
				return err
			}
		}
		return s.tables.Close()
	})
}

func mac(t *testing.T, nsName, link string) net.HardwareAddr {
	t.Helper()
	h, err := ns.Handle(nsName)
	require.NoError(t, err)
	defer h.Close()
	l, err := h.LinkByName(link)
	require.NoError(t, err)
	return l.Attrs().HardwareAddr
}

func (s *shimmed) inNode(do func() error) {
	s.t.Helper()
	require.NoError(s.t, ns.Do(s.node.Name, do))
}

// bind gives both shims the tables and their roles.
func (s *shimmed) bind() {
	s.t.Helper()
	require.NoError(s.t, s.uplink.Bind(xdp.RoleUplink, s.tables))
	require.NoError(s.t, s.pod.Bind(xdp.RolePod, s.tables))
}

// start puts the forwarder behind the shims, as VPP does at its start.
func (s *shimmed) start() {
	s.t.Helper()
	s.inNode(func() error {
		var err error
		s.forwarder, err = standin.Start(s.conf)
		return err
	})
	uplink, pod := s.forwarder.Sockets()
	require.NoError(s.t, s.uplink.RegisterSocket(0, uplink))
	require.NoError(s.t, s.pod.RegisterSocket(0, pod))
}

// die takes the forwarder away as a crash would.
func (s *shimmed) die() {
	s.t.Helper()
	require.NoError(s.t, s.forwarder.Close())
	s.forwarder = nil
}

func (s *shimmed) mode(m xdp.Mode) {
	s.t.Helper()
	require.NoError(s.t, s.uplink.SetMode(m))
	require.NoError(s.t, s.pod.SetMode(m))
}

// counters are those of both shims.
func (s *shimmed) counters() (uplink, pod map[string]uint64) {
	s.t.Helper()
	uplink, err := s.uplink.Counters()
	require.NoError(s.t, err)
	pod, err = s.pod.Counters()
	require.NoError(s.t, err)
	return uplink, pod
}

// grown are the counters that grew during a phase.
func grown(before, after map[string]uint64) map[string]uint64 {
	out := map[string]uint64{}
	for name, n := range after {
		if n > before[name] {
			out[name] = n - before[name]
		}
	}
	return out
}

// TestShimWithoutVPP is the shim's own path: the lookup, the mode switch, the
// fall-through to the kernel when the sockets go, and the counters, with a plain
// AF_XDP forwarder in VPP's place. Traffic between pods and of the hosts goes on
// through all of it.
func TestShimWithoutVPP(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: XDP programs")
	}
	if err := xdp.Supported(); err != nil {
		t.Skip(err)
	}
	l := newLab(t, lab.Options{Nodes: 2, Pods: 2, Paths: 2})
	n := l.Node(1)
	s := shim(t, n, l.Node(2))
	w, err := lab.StartWatch(n, l.Node(2))
	require.NoError(t, err)
	stopped := false
	defer func() {
		if !stopped {
			w.Stop()
		}
	}()

	// windows are judged when all of it is over.
	type phase struct {
		name   string
		window traffic.Window
		limit  lab.Limits
	}
	var phases []phase
	run := func(name string, limit lab.Limits, do func()) (uplink, pod map[string]uint64) {
		t.Helper()
		p := phase{name: name, limit: limit}
		uplinkBefore, podBefore := s.counters()
		// What is on the way when it happens is part of it.
		p.window.From = time.Now()
		time.Sleep(20 * time.Millisecond)
		do()
		time.Sleep(400 * time.Millisecond)
		p.window.To = time.Now()
		uplinkAfter, podAfter := s.counters()
		uplink, pod = grown(uplinkBefore, uplinkAfter), grown(podBefore, podAfter)
		t.Logf("%s: uplink %v, pod %v", name, uplink, pod)
		phases = append(phases, p)
		return uplink, pod
	}
	lossless := lab.Limits{}

	uplink, pod := run("a fresh shim", lossless, func() {})
	require.Zero(t, uplink["vpp"]+pod["vpp"])
	require.Positive(t, uplink["kernel-mode"])
	require.Positive(t, pod["kernel-mode"])

	uplink, pod = run("tables bound", lossless, s.bind)
	require.Zero(t, uplink["vpp"]+pod["vpp"])

	_, _ = run("mode VPP, nobody there", lossless, func() { s.mode(xdp.ModeVPP) })
	uplink, pod = run("mode VPP, nobody there, later", lossless, func() {})
	require.Positive(t, uplink["no-socket"])
	require.Positive(t, pod["no-socket"])
	require.Zero(t, uplink["vpp"]+pod["vpp"]+pod["kernel-mode"])

	_, _ = run("sockets there", lossless, s.start)
	before := s.forwarder.Counts()
	uplink, pod = run("sockets there, later", lossless, func() {})
	after := s.forwarder.Counts()
	require.Positive(t, uplink["vpp"])
	require.Positive(t, pod["vpp"])
	require.Zero(t, pod["no-socket"]+uplink["no-socket"])
	require.Positive(t, uplink["kernel-table"], "the host's own traffic is the kernel's")
	require.Greater(t, after.Encapsulated, before.Encapsulated+200)
	require.Greater(t, after.Decapsulated, before.Decapsulated+200)
	require.Zero(t, after.Unknown, "it gets nothing but the pod's")
	require.Zero(t, after.NoRoom)

	for _, m := range []xdp.Mode{xdp.ModeKernel, xdp.ModeHeld} {
		_, _ = run("mode "+m.String(), lossless, func() { s.mode(m) })
		uplink, pod = run("mode "+m.String()+", later", lossless, func() {})
		require.Zero(t, uplink["vpp"]+pod["vpp"])
		require.Positive(t, pod["kernel-mode"])
		_, _ = run("mode VPP after "+m.String(), lossless, func() { s.mode(xdp.ModeVPP) })
	}

	for range 3 {
		// What is lost is what came while the sockets were being closed.
		limit := lab.Limits{}
		_, pod = run("the forwarder dies", limit, func() {
			begin := time.Now()
			s.die()
			took := time.Since(begin)
			t.Logf("the sockets were closed within %s", took)
			limit.Lost = 2 + int(took.Seconds()*lab.WatchRate)
		})
		phases[len(phases)-1].limit = limit
		require.Positive(t, pod["no-socket"])
		_, pod = run("another one starts", lossless, s.start)
		require.Positive(t, pod["vpp"])
	}

	// The node's second pod is not in the tables.
	requireReach(t, l)
	uplink, _ = s.counters()
	require.Positive(t, uplink["kernel-inner"])
	require.Zero(t, s.forwarder.Counts().Unknown)

	stopped = true
	all := w.Stop()
	t.Logf("in all: %+v", all)
	require.NoError(t, all.Err)
	t.Logf("forwarder: %+v; links: %s", s.forwarder.Counts(), drops(t, n))
	for _, p := range phases {
		r := w.Result(p.window)
		t.Logf("%-30s %d sent, %d lost, gap %s, TCP gap %s, host %d sent, %d lost", p.name, r.Sent, r.Lost, r.MaxGap, r.TCPMaxGap, r.HostSent, r.HostLost)
		// Gaps depend on the machine; what is lost does not.
		p.limit.Gap = 0
		require.NoError(t, p.limit.Check(r, 0), p.name)
	}
}

// drops are the links of a node that dropped something.
func drops(t *testing.T, n *lab.Node) string {
	t.Helper()
	h, err := ns.Handle(n.Name)
	require.NoError(t, err)
	defer h.Close()
	links, err := h.LinkList()
	require.NoError(t, err)
	var out []string
	for _, l := range links {
		if s := l.Attrs().Statistics; s != nil && s.RxDropped+s.TxDropped > 0 {
			out = append(out, fmt.Sprintf("%s dropped %d received, %d to be sent", l.Attrs().Name, s.RxDropped, s.TxDropped))
		}
	}
	return strings.Join(out, "; ")
}
