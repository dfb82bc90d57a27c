package lab_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/test/lab"
	"github.com/sidewinder-net/sidewinder/test/lab/labtest"
	"github.com/sidewinder-net/sidewinder/test/lab/ns"
	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
	"github.com/sidewinder-net/sidewinder/test/lab/tree"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
)

var build labtest.Builder

// tests lets the programs be removed after the run.
type tests struct{ m *testing.M }

func (t tests) Run() int {
	defer build.Clean()
	return t.m.Run()
}

func TestMain(m *testing.M) { lab.Main(tests{m}) }

// newLab makes and starts a lab for one test.
func newLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	in, ok := tree.Current()
	if !ok {
		t.Skip("needs namespaces: root or user namespaces")
	}
	labtest.Alone(t)
	var err error
	o.Dir, err = os.MkdirTemp(in.Dir, "test")
	require.NoError(t, err)
	o.BinDir = build.Dir(t)
	log := logrus.New()
	logs, err := os.Create(filepath.Join(o.Dir, "lab.log"))
	require.NoError(t, err)
	log.SetOutput(logs)
	o.Log = log
	l, err := lab.New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		logs.Close()
		left, err := tree.Residue()
		require.NoError(t, err)
		require.Empty(t, left)
	})
	require.NoError(t, l.Start(t.Context()))
	return l
}

// findVPP gives the vpp program; without a usable one the test is skipped.
func findVPP(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("VPP needs root")
	}
	v, err := find.Find(t.Context(), "", binapi.GroupAFPacket, binapi.GroupAFXDP)
	if err != nil {
		t.Skipf("VPP not found: %v", err)
	}
	return v.Path
}

// requireReach wants every pod to reach every pod, with every check.
func requireReach(t *testing.T, l *lab.Lab) {
	t.Helper()
	var peers []traffic.Peer
	for _, p := range l.Pods() {
		peers = append(peers, p.Peer())
	}
	m, err := traffic.Reach(t.Context(), peers, traffic.Checks(), nil)
	require.NoError(t, err)
	require.Empty(t, m.Failures)
	require.Equal(t, len(peers)*(len(peers)-1)*2*len(traffic.Checks()), m.OK)
}

func TestNodesComeAndGo(t *testing.T) {
	l := newLab(t, lab.Options{Nodes: 2, Pods: 1, Paths: 2})
	ctx := t.Context()
	requireReach(t, l)

	n3, err := l.AddNode(ctx, 3)
	require.NoError(t, err)
	_, err = n3.AddPod(ctx)
	require.NoError(t, err)
	require.NoError(t, l.WaitConverged(ctx))
	requireReach(t, l)

	s, err := n3.Status(ctx)
	require.NoError(t, err)
	gone := lab.Departed{Locator: netip.MustParsePrefix(s.Locator), PodCIDRs: n3.PodCIDRs()}
	found, err := l.Node(1).Residue(ctx, gone)
	require.NoError(t, err)
	require.NotEmpty(t, found, "the search finds what is there")

	require.NoError(t, l.RemoveNode(ctx, 3))
	require.NoError(t, l.WaitConverged(ctx))
	for _, n := range l.Nodes() {
		found, err := n.Residue(ctx, gone)
		require.NoError(t, err)
		require.Empty(t, found, n.Name)
	}
	requireReach(t, l)

	_, err = l.AddNode(ctx, 3)
	require.NoError(t, err)
	require.NoError(t, l.WaitConverged(ctx))
}

func TestPodsComeAndGo(t *testing.T) {
	l := newLab(t, lab.Options{Nodes: 2, Pods: 1, Paths: 1})
	ctx := t.Context()
	n := l.Node(1)
	pod, err := n.AddPod(ctx)
	require.NoError(t, err)
	require.Len(t, pod.IPs, 2)
	require.Equal(t, lab.DefaultMTU-config.EncapOverhead, pod.MTU)
	requireReach(t, l)
	require.NoError(t, n.DelPod(ctx, pod))
	require.Len(t, l.Pods(), 2)
	_, err = os.Stat(ns.Path(pod.Name))
	require.ErrorIs(t, err, os.ErrNotExist)
	s, err := n.Status(ctx)
	require.NoError(t, err)
	require.Equal(t, 1, s.Endpoints)
	requireReach(t, l)
}

// TestTrafficOutlivesTheAgent: the agents at both ends die and come back while
// pods come and go on a third node, and no packet is lost.
func TestTrafficOutlivesTheAgent(t *testing.T) {
	l := newLab(t, lab.Options{Nodes: 3, Pods: 1, Paths: 2})
	ctx := t.Context()
	a, b := l.Node(1).Pods()[0], l.Node(2).Pods()[0]
	var streams []*traffic.Stream
	for _, way := range [][2]*lab.Pod{{a, b}, {b, a}, {a, l.Node(3).Pods()[0]}} {
		for _, to := range way[1].IPs {
			s, err := traffic.StartStream(way[0].Name, way[1].Name, to, 200)
			require.NoError(t, err)
			streams = append(streams, s)
		}
	}
	stop, churned := make(chan struct{}), make(chan error, 1)
	rounds := 0
	go func() { churned <- churn(ctx, l.Node(3), stop, &rounds) }()

	for _, n := range []*lab.Node{l.Node(1), l.Node(2)} {
		require.NoError(t, n.KillAgent())
		require.Error(t, n.KillAgent(), "it is dead already")
		_, err := n.Status(ctx)
		require.Error(t, err)
		time.Sleep(200 * time.Millisecond)
		require.NoError(t, n.StartAgent(ctx))
		require.NoError(t, l.WaitConverged(ctx))
	}
	close(stop)
	require.NoError(t, <-churned)
	for _, s := range streams {
		requireFlow(t, s, 50)
		r := s.Stop()
		require.Zero(t, r.Lost)
	}
	requireReach(t, l)
	s, err := l.Node(3).Status(ctx)
	require.NoError(t, err)
	require.Equal(t, 1, s.Endpoints, "what came is gone")
	t.Logf("%d pods came and went", rounds)
}

// churn adds and removes pods, three at least, until it is told to stop, and
// counts them.
func churn(ctx context.Context, n *lab.Node, stop <-chan struct{}, rounds *int) error {
	for {
		select {
		case <-stop:
			if *rounds >= 3 {
				return nil
			}
		default:
		}
		pod, err := n.AddPod(ctx)
		if err != nil {
			return err
		}
		if err := n.DelPod(ctx, pod); err != nil {
			return err
		}
		*rounds++
	}
}

func TestAgentThatEndsIsReported(t *testing.T) {
	l := newLab(t, lab.Options{Nodes: 2, Pods: 1, Paths: 1})
	// Killed behind the lab's back.
	args, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	killed := 0
	for _, path := range args {
		raw, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(raw), "sidewinder-agent\x00") || !strings.Contains(string(raw), "node2.yaml") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		killed++
	}
	require.Equal(t, 1, killed)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.Eventually(t, func() bool {
		err := l.WaitConverged(ctx)
		return err != nil && strings.Contains(err.Error(), "agent of node2 has ended (signal: killed)")
	}, 10*time.Second, 50*time.Millisecond)
	require.NoError(t, ctx.Err(), "it is reported at once, not after the waiting time")
}

func TestExecSeesTheNode(t *testing.T) {
	l := newLab(t, lab.Options{Nodes: 2, Pods: 1, Paths: 1, MTU: 1600})
	out, err := l.Node(2).Exec(t.Context(), "cat", "/proc/sys/kernel/hostname", "/sys/class/net/uplink0/mtu")
	require.NoError(t, err)
	require.Equal(t, "node2\n1600\n", out)
	_, err = l.Node(2).Exec(t.Context(), "cat", "/nonexistent")
	require.ErrorContains(t, err, "No such file")
	_, err = l.Node(2).Exec(t.Context(), "no-such-program")
	require.ErrorContains(t, err, "no-such-program")
	require.Equal(t, 1600-config.EncapOverhead, l.Pods()[0].MTU)
	requireReach(t, l)
}

func TestMixedDataplanes(t *testing.T) {
	vpp := findVPP(t)
	l := newLab(t, lab.Options{Nodes: 2, Pods: 2, Paths: 2, VPP: vpp, Dataplane: func(node int) string {
		return map[int]string{1: config.DataplaneVPP, 2: config.DataplaneLinux}[node]
	}})
	requireReach(t, l)
	s, err := l.Node(1).Status(t.Context())
	require.NoError(t, err)
	require.NoError(t, l.Node(1).CompareVPP(t.Context(), s))
	s.Policies[0].BSID = "fcbb:bb00:1:eb51:9999::4"
	require.ErrorContains(t, l.Node(1).CompareVPP(t.Context(), s), "9999::4 is missing", "a difference is seen")
	s, err = l.Node(1).Status(t.Context())
	require.NoError(t, err)
	_, err = l.Node(1).VPPShow(t.Context(), "sr localsid address 2001:db8::e behavior end")
	require.NoError(t, err)
	require.ErrorContains(t, l.Node(1).CompareVPP(t.Context(), s), "2001:db8::e/128 is surplus", "and what VPP has beyond")
	_, err = l.Node(2).VPPShow(t.Context(), "show version")
	require.Error(t, err)
}

func TestOptions(t *testing.T) {
	bin := build.Dir(t)
	good := lab.Options{Nodes: 2, Pods: 1, Paths: 1, BinDir: bin, Dir: "/"}
	require.NoError(t, good.Validate())
	for want, change := range map[string]func(*lab.Options){
		"nodes: 1 is not between 2 and 20":             func(o *lab.Options) { o.Nodes = 1 },
		"pods: 201 is not between 1 and 200":           func(o *lab.Options) { o.Pods = 201 },
		"paths: 0 is not between 1 and 16":             func(o *lab.Options) { o.Paths = 0 },
		"mtu: 1300 is not between 1320 and 9000":       func(o *lab.Options) { o.MTU = 1300 },
		`bin directory: "bin" is not an absolute path`: func(o *lab.Options) { o.BinDir = "bin" },
		"make build": func(o *lab.Options) { o.BinDir = "/nonexistent" },
		`dataplane of node 1: "ovs" is not one of`:         func(o *lab.Options) { o.Dataplane = func(int) string { return "ovs" } },
		"vpp: a node is to run it, but no vpp program is ": func(o *lab.Options) { o.Dataplane = func(int) string { return "vpp" } },
	} {
		o := good
		change(&o)
		require.ErrorContains(t, o.Validate(), want)
	}
}
