package lab

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLimits(t *testing.T) {
	const noise = 3 * time.Millisecond
	good := WatchResult{Sent: 4000, Lost: 4, WorstLost: 2, MaxGap: 13 * time.Millisecond, TCPMaxGap: time.Second, HostSent: 400}
	require.NoError(t, LimitsOf(DisturbKill).Check(good, noise))
	for want, spoil := range map[string]func(*WatchResult){
		"lost 3, at most 2":       func(r *WatchResult) { r.WorstLost = 3 },
		"a gap of 13.1 ms":        func(r *WatchResult) { r.MaxGap += 100 * time.Microsecond },
		"1 ends of pods' TCP":     func(r *WatchResult) { r.TCPResets = 1 },
		"1 of 400 of the nodes'":  func(r *WatchResult) { r.HostLost = 1 },
		"2 ends of the nodes' ow": func(r *WatchResult) { r.HostTCPResets = 2 },
		"chunk 7: wrong data":     func(r *WatchResult) { r.Err = errors.New("chunk 7: wrong data") },
	} {
		r := good
		spoil(&r)
		require.ErrorContains(t, LimitsOf(DisturbKill).Check(r, noise), want)
	}
	stop := WatchResult{WorstLost: 500, MaxGap: 590 * time.Millisecond}
	require.NoError(t, LimitsOf(DisturbStop).Check(stop, 0))
	stop.MaxGap = 601 * time.Millisecond
	require.ErrorContains(t, LimitsOf(DisturbStop).Check(stop, 0), "at most 600.0 ms")
	require.Error(t, LimitsOf(DisturbRestart).Check(WatchResult{WorstLost: 1}, noise))
	require.NoError(t, LimitsOf(DisturbRestart).Check(WatchResult{MaxGap: time.Second}, noise))
	require.NoError(t, LimitsOf(DisturbCrashLoop).Check(WatchResult{WorstLost: 2 * CrashLoop}, noise))
	for _, d := range Disturbances() {
		require.NotEqual(t, DisturbNone, d)
	}
}
