package supervise

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/watchdog"
)

// A VPP that dumps core says nothing for as long as that takes. To kill it as one
// that hangs would leave half a dump, and hide what it died of.
func TestCoreDumpIsWaitedFor(t *testing.T) {
	limits := watchdog.DefaultLimits()
	limits.Busy = 300 * time.Millisecond // a dump of gigabytes exceeds the default
	l := &links{}
	s := &Supervisor{Path: realVPP(t), Conf: config(t), Traffic: l, Watch: &limits}
	s.Conf.CoreDumps, s.Conf.Buffers = true, 131072
	ready, _, logs := run(t, s)
	pid := waitReady(t, ready)
	require.NoError(t, syscall.Kill(pid, syscall.SIGSEGV))
	require.Eventually(t, func() bool { return s.Status().Deaths == 1 }, 60*time.Second, 10*time.Millisecond)
	m := stateOf(t, s.Conf)
	require.NotContains(t, m.LastDeath, "hung")
	require.Contains(t, m.LastDeath, "signal 6 (aborted)")
	seen := false
	for _, e := range logs.AllEntries() {
		seen = seen || strings.Contains(e.Message, "dumps core")
	}
	if !seen {
		t.Skip("the dump was over before VPP could be taken for one that hangs; or core_pattern has none written")
	}
	require.Contains(t, m.LastDeath, "core dumped")
	require.Equal(t, "hold", l.said(), "the traffic does not wait for the dump")
	waitState(t, s.Conf, node.StateReady)
}

func TestDumpsCore(t *testing.T) {
	require.False(t, dumpsCore(os.Getpid()))
	require.False(t, dumpsCore(1<<30), "there is no such process")
}
