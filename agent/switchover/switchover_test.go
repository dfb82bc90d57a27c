package switchover

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// memory is a Carrier that notes what it is told.
type memory struct {
	tables  Tables
	sets    int
	bound   int
	open    Links
	isOpen  bool
	failing map[string]error // Open's answer
	noSet   error
	noShut  error
}

func (m *memory) Set(t Tables) error {
	if m.noSet != nil {
		return m.noSet
	}
	m.sets++
	m.tables = Tables{Uplink: maps.Clone(t.Uplink), Pods: maps.Clone(t.Pods)}
	return nil
}

// vpp are the pods' destinations that VPP has.
func (m *memory) vpp() []netip.Prefix {
	var out []netip.Prefix
	for p, v := range m.tables.Pods {
		if v == xdp.VerdictVPP {
			out = append(out, p)
		}
	}
	return out
}

func (m *memory) Open(l Links) map[string]error {
	m.open, m.isOpen = l, true
	return m.failing
}
func (m *memory) Bind(Links)           { m.bound++ }
func (m *memory) Shut() error          { m.isOpen = false; return m.noShut }
func (m *memory) Links() []status.Link { return nil }
func (m *memory) Close() error         { return nil }

// bench is a Gate with everything around it in memory.
type bench struct {
	*Gate
	carrier  *memory
	unmet    map[dataplane.Key]error
	err      error
	manager  node.Manager
	absent   error
	repaired int
	dropped  int
}

func newBench() *bench {
	b := &bench{carrier: &memory{}, manager: node.Manager{State: node.StateReady}}
	log := logrus.New()
	log.SetOutput(io.Discard)
	b.Gate = New(Options{
		Unmet:   func(uint64) (map[dataplane.Key]error, error) { return b.unmet, b.err },
		Repair:  func() { b.repaired++ },
		Drop:    func() { b.dropped++ },
		Manager: func() (node.Manager, error) { return b.manager, b.absent },
		Uplinks: b.carrier, Pods: b.carrier, Log: log,
	})
	return b
}

var (
	locator = netip.MustParsePrefix("fcbb:bb00:1::/48")
	dt4     = netip.MustParsePrefix("fcbb:bb00:1:e004::/128")
	remote  = netip.MustParsePrefix("10.244.2.0/24")
	local   = netip.MustParsePrefix("10.244.1.5/32")
)

func want() dataplane.Redirects {
	r := dataplane.NewRedirects()
	r.Uplink[locator] = dataplane.Redirect{Needs: []dataplane.Key{dataplane.LocalSIDKey{SID: locator}}}
	r.Uplink[dt4] = dataplane.Redirect{Inner: true, Needs: []dataplane.Key{dataplane.LocalSIDKey{SID: dt4}}}
	r.Pods[remote] = dataplane.Redirect{Needs: []dataplane.Key{dataplane.SteeringKey{Prefix: remote}}}
	r.Pods[local] = dataplane.Redirect{Needs: []dataplane.Key{dataplane.InterfaceKey("sw5")}}
	return r
}

var links = Links{Uplinks: []string{"eth0"}, Pods: []string{"sw5"}}

// TestWhoCarries: one case for each thing that can be in the way.
func TestWhoCarries(t *testing.T) {
	notReady := fmt.Errorf("%w: later", dataplane.ErrNotReady)
	for name, c := range map[string]struct {
		change   func(*bench)
		active   bool
		reason   string // part of it
		withheld []string
		pods     int
	}{
		"nothing in the way": {change: func(*bench) {}, active: true, pods: 2},
		"no manager":         {change: func(b *bench) { b.absent = os.ErrNotExist }, active: true, pods: 2},
		"VPP is away":        {change: func(b *bench) { b.err = dataplane.ErrDisconnected }, reason: "not reachable"},
		"draining":           {change: func(b *bench) { b.manager.State = node.StateDraining }, reason: "draining"},
		"manager stopped, VPP run by somebody else": {change: func(b *bench) { b.manager.State = node.StateStopped }, active: true, pods: 2},
		"manager stopped, VPP with it": {change: func(b *bench) {
			b.manager.State, b.err = node.StateStopped, dataplane.ErrDisconnected
		}, reason: "not reachable"},
		"starting": {change: func(b *bench) { b.manager.State = node.StateStarting }, reason: "starting"},
		"given up": {change: func(b *bench) {
			b.manager = node.Manager{State: node.StateGivenUp, Deaths: 5, LastDeath: "signal 11\nmore"}
		}, reason: "after 5 deaths, the last: signal 11 (find the reason in its log, then run vpp-manager restart)"},
		"a SID is missing": {change: func(b *bench) {
			b.unmet = map[dataplane.Key]error{dataplane.LocalSIDKey{SID: dt4}: errors.New("refused")}
		}, reason: "refused"},
		"the uplink is missing": {change: func(b *bench) {
			b.unmet = map[dataplane.Key]error{dataplane.InterfaceKey("eth0"): errors.New("no queue")}
		}, reason: "uplink eth0: no queue"},
		"a pod is missing": {change: func(b *bench) {
			b.unmet = map[dataplane.Key]error{dataplane.InterfaceKey("sw5"): errors.New("no buffers")}
		}, active: true, withheld: []string{local.String()}, pods: 1},
		"a steering is missing": {change: func(b *bench) {
			b.unmet = map[dataplane.Key]error{dataplane.SteeringKey{Prefix: remote}: errors.New("x")}
		}, active: true, withheld: []string{remote.String()}, pods: 1},
		"a pod's shim is missing": {change: func(b *bench) {
			b.carrier.failing = map[string]error{"sw5": xdp.ErrNoShim}
		}, active: true, withheld: []string{"link sw5"}, pods: 2},
		"the uplink's shim is missing": {change: func(b *bench) {
			b.carrier.failing = map[string]error{"eth0": xdp.ErrNoShim}
		}, reason: "uplink eth0"},
		"tables cannot be written": {change: func(b *bench) { b.carrier.noSet = errors.New("full") }, reason: "full"},
		"being programmed":         {change: func(b *bench) { b.err = notReady }, reason: "being programmed"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			c.change(b)
			b.Want(want(), links, 1)
			b.pass()
			s := b.Status()
			require.Equal(t, c.active, s.Active == ActiveVPP, s.Reason)
			require.Equal(t, c.active, b.carrier.isOpen)
			require.Contains(t, s.Reason, c.reason)
			var withheld []string
			for _, w := range s.Withheld {
				withheld = append(withheld, w.Key)
				require.NotEmpty(t, w.Reason)
			}
			require.Equal(t, c.withheld, withheld)
			if c.active {
				require.Len(t, b.carrier.vpp(), c.pods)
				require.Len(t, b.carrier.tables.Pods, 2, "what is withheld is the kernel's also within a larger prefix")
				require.Equal(t, map[netip.Prefix]xdp.Verdict{locator: xdp.VerdictVPP, dt4: xdp.VerdictVPPInner}, b.carrier.tables.Uplink)
			}
		})
	}
}

// TestNothingBeforeItIsKnown: an agent that has just started leaves alone what
// the one before it left, until it knows something.
func TestNothingBeforeItIsKnown(t *testing.T) {
	b := newBench()
	b.carrier.isOpen = true
	b.pass()
	require.True(t, b.carrier.isOpen, "nothing was wanted yet")
	b.Want(want(), links, 1)
	b.err = fmt.Errorf("%w: later", dataplane.ErrNotReady)
	b.pass()
	require.True(t, b.carrier.isOpen, "VPP's state is not known yet")
	b.err = dataplane.ErrDisconnected
	b.pass()
	require.False(t, b.carrier.isOpen)
}

// TestBackAndForth: every way out leads back in, and each turn is counted once.
func TestBackAndForth(t *testing.T) {
	b := newBench()
	b.Want(want(), links, 1)
	b.pass()
	for i := range 3 {
		b.err = dataplane.ErrDisconnected
		b.pass()
		b.pass()
		require.False(t, b.Active())
		b.err = nil
		b.pass()
		b.pass()
		require.True(t, b.Active())
		require.Equal(t, 2*(i+1), b.Status().Switches)
	}
}

// TestNewStateKeepsTheOld: while VPP works on a new state it carries what the
// old and the new have in common, and no more.
func TestNewStateKeepsTheOld(t *testing.T) {
	b := newBench()
	b.Want(want(), links, 1)
	b.pass()
	next := want()
	delete(next.Pods, remote)
	other := netip.MustParsePrefix("10.244.3.0/24")
	next.Pods[other] = dataplane.Redirect{Needs: []dataplane.Key{dataplane.SteeringKey{Prefix: other}}}
	b.Narrow(next)
	require.NotContains(t, b.carrier.tables.Pods, remote, "VPP is about to forget it")
	require.NotContains(t, b.carrier.tables.Pods, other, "VPP does not have it yet")
	b.Want(next, links, 2)
	b.err = fmt.Errorf("%w: later", dataplane.ErrNotReady)
	b.pass()
	require.True(t, b.Active())
	require.NotContains(t, b.carrier.tables.Pods, other)
	b.err = nil
	b.pass()
	require.Contains(t, b.carrier.tables.Pods, other)
	sets := b.carrier.sets
	b.pass()
	require.Equal(t, sets, b.carrier.sets, "nothing has changed")
}

// TestPause: the kernel has the traffic while VPP is changed, and nobody counts
// that as a switch.
func TestPause(t *testing.T) {
	b := newBench()
	b.Pause()
	require.False(t, b.carrier.isOpen)
	b.Want(want(), links, 1)
	b.pass()
	b.Pause()
	require.False(t, b.carrier.isOpen)
	b.err = fmt.Errorf("%w: being changed", dataplane.ErrNotReady)
	b.pass()
	require.False(t, b.carrier.isOpen, "the change is under way")
	b.err = nil
	b.pass()
	require.True(t, b.carrier.isOpen)
	require.Zero(t, b.Status().Switches)
}

// TestFailureToShutIsTold and tried again.
func TestFailureToShutIsTold(t *testing.T) {
	b := newBench()
	b.Want(want(), links, 1)
	b.pass()
	b.err, b.carrier.noShut = dataplane.ErrDisconnected, errors.New("map gone")
	b.pass()
	require.Contains(t, b.Status().Reason, "map gone")
	b.carrier.noShut = nil
	b.pass()
	require.NotContains(t, b.Status().Reason, "map gone")
}

// TestAVPPThatIsGivenUpIsDropped, once.
func TestAVPPThatIsGivenUpIsDropped(t *testing.T) {
	b := newBench()
	b.Want(want(), links, 1)
	b.pass()
	for _, s := range []node.State{node.StateWaiting, node.StateWaiting, node.StateStarting, node.StateReady, node.StateDraining} {
		b.manager.State = s
		b.pass()
		require.Equal(t, 1, b.dropped, s)
	}
}

// TestRepairIsAskedFor where VPP's links have lost the shim: each comparison ends
// in a pass, so a failure that stays must not ask for the next one.
func TestRepairIsAskedFor(t *testing.T) {
	for _, link := range []string{"sw5", "eth0"} {
		b := newBench()
		b.carrier.failing = map[string]error{link: xdp.ErrNoShim}
		b.Want(want(), links, 1)
		for range 3 {
			b.pass()
			require.Equal(t, 1, b.repaired, link)
		}
		b.askedAt = b.askedAt.Add(-repairInterval)
		b.pass()
		require.Equal(t, 2, b.repaired, "%s: from time to time", link)
		b.carrier.failing = map[string]error{link: xdp.ErrForeignProgram}
		b.pass()
		require.Equal(t, 3, b.repaired, "%s: another failure", link)
		b.carrier.failing = map[string]error{link: errHeld}
		b.pass()
		require.Equal(t, 3, b.repaired, "%s: vpp-manager's own doing", link)
	}
}

// TestNothingComesBackBeforeTheNewState: a pass between Narrow and Want knows the
// old state only, and must not give VPP what it is about to forget.
func TestNothingComesBackBeforeTheNewState(t *testing.T) {
	b := newBench()
	b.Want(want(), links, 1)
	b.pass()
	next := want()
	delete(next.Pods, remote)
	b.Narrow(next)
	b.pass()
	require.Equal(t, []netip.Prefix{local}, b.carrier.vpp())
	require.True(t, b.Active())
}

// TestKeptFromVPP: what VPP cannot carry within a larger prefix of VPP's is the
// kernel's in every state in between.
func TestKeptFromVPP(t *testing.T) {
	b := newBench()
	b.Want(want(), links, 1)
	b.pass()
	borrowed := netip.MustParsePrefix("10.244.2.77/32")
	next := want()
	next.Pods[borrowed] = dataplane.Redirect{Kernel: true}
	next.Pods[local] = dataplane.Redirect{Kernel: true}
	b.Narrow(next)
	for range 2 {
		require.Equal(t, map[netip.Prefix]xdp.Verdict{remote: xdp.VerdictVPP, borrowed: xdp.VerdictKernel, local: xdp.VerdictKernel}, b.carrier.tables.Pods)
		b.Want(next, links, 2)
		b.pass()
	}
	require.Empty(t, b.Status().Withheld, "its reason is among the problems")
	b.Narrow(want())
	require.Equal(t, xdp.VerdictKernel, b.carrier.tables.Pods[borrowed], "until VPP has worked on the new state")
	b.Want(want(), links, 3)
	b.pass()
	require.NotContains(t, b.carrier.tables.Pods, borrowed)
	require.ElementsMatch(t, []netip.Prefix{local, remote}, b.carrier.vpp())
}

// TestNarrowThatFails gives everything to the kernel: VPP is about to forget.
func TestNarrowThatFails(t *testing.T) {
	b := newBench()
	b.Want(want(), links, 1)
	b.pass()
	next := want()
	delete(next.Pods, remote)
	b.carrier.noSet = errors.New("table gone")
	b.Narrow(next)
	require.False(t, b.carrier.isOpen)
	require.Contains(t, b.Status().Reason, "table gone")
	b.carrier.noSet = nil
	b.Want(next, links, 2)
	b.pass()
	require.True(t, b.Active())
}

// TestPauseOfAnAgentThatHasJustStarted: VPP may have the traffic from before.
func TestPauseOfAnAgentThatHasJustStarted(t *testing.T) {
	b := newBench()
	b.carrier.isOpen = true
	b.Pause()
	require.False(t, b.carrier.isOpen)
}

// TestVPPThatIsAwayBeforeAnythingIsWanted: the source of cluster state may not
// answer for long.
func TestVPPThatIsAwayBeforeAnythingIsWanted(t *testing.T) {
	b := newBench()
	b.carrier.isOpen = true
	b.manager.State = node.StateGivenUp
	b.pass()
	require.False(t, b.carrier.isOpen)
	require.Contains(t, b.Status().Reason, "given up")
}

// TestReasonThatIsOver is not told any more while VPP is programmed; what VPP was
// found to lack is.
func TestReasonThatIsOver(t *testing.T) {
	notReady := fmt.Errorf("%w: later", dataplane.ErrNotReady)
	b := newBench()
	b.Want(want(), links, 1)
	b.manager.State = node.StateWaiting
	b.pass()
	require.Contains(t, b.Status().Reason, "waiting")
	b.manager.State, b.err = node.StateReady, notReady
	b.pass()
	require.Equal(t, "VPP is being programmed", b.Status().Reason)

	b.err, b.unmet = nil, map[dataplane.Key]error{dataplane.InterfaceKey("eth0"): errors.New("no queue")}
	b.pass()
	b.err = notReady
	b.pass()
	require.Contains(t, b.Status().Reason, "no queue")
}

// TestBeforeOpen: what the kernel needs is seen to before each opening, and hinders
// none.
func TestBeforeOpen(t *testing.T) {
	b := newBench()
	var opened []bool
	b.o.BeforeOpen = func() error { opened = append(opened, b.carrier.isOpen); return errors.New("read-only") }
	b.Want(want(), links, 1)
	b.pass()
	b.pass()
	require.Equal(t, []bool{false, true}, opened)
	require.True(t, b.Active())
}

// TestLinksAreWatchedWhileVPPIsProgrammed, once there are tables to watch with.
func TestLinksAreWatchedWhileVPPIsProgrammed(t *testing.T) {
	notReady := fmt.Errorf("%w: later", dataplane.ErrNotReady)
	b := newBench()
	b.Want(want(), links, 1)
	b.err = notReady
	b.pass()
	require.Zero(t, b.carrier.bound, "an agent before may have given VPP more than nothing")
	require.False(t, b.binding)
	for _, err := range []error{nil, dataplane.ErrDisconnected, notReady} {
		b.err = err
		b.pass()
	}
	require.Equal(t, 1, b.carrier.bound)
	require.True(t, b.binding, "and again soon: VPP puts one on after the other")
	require.False(t, b.carrier.isOpen)
	b.err = nil
	b.pass()
	require.False(t, b.binding)
}

// TestThousandsWithheld: one next hop may be the way to all other nodes; looking at
// them again costs little.
func TestThousandsWithheld(t *testing.T) {
	b := newBench()
	var lines bytes.Buffer
	b.o.Log.(*logrus.Logger).SetOutput(&lines)
	hop := dataplane.InterfaceKey("eth1")
	r := want()
	for i := range 10000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + byte(i>>8), byte(i), 0}), 24)
		r.Pods[p] = dataplane.Redirect{Needs: []dataplane.Key{hop}}
	}
	b.unmet = map[dataplane.Key]error{hop: errors.New("gone")}
	b.Want(r, links, 1)
	b.pass()
	require.Len(t, b.Status().Withheld, 10000)
	require.Equal(t, toldEach, strings.Count(lines.String(), "stays with the kernel"))
	require.Contains(t, lines.String(), "more=9990")
	begin := time.Now()
	for range 10 {
		b.pass()
	}
	require.Less(t, time.Since(begin), 2*time.Second)
}
