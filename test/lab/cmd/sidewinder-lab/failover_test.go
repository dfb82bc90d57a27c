package main

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/test/lab"
	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
)

// at is a moment of the test's own time.
func at(seconds int) time.Time { return time.Unix(int64(1000+seconds), 0) }

// events are three windows of a second, and what was measured in them.
func events() ([]window, func(traffic.Window) lab.WatchResult) {
	var windows []window
	for i, kind := range []lab.Disturbance{lab.DisturbNone, lab.DisturbKill, lab.DisturbKill, lab.DisturbRestart} {
		windows = append(windows, window{kind: kind, in: traffic.Window{From: at(i), To: at(i + 1)}, back: time.Duration(i) * time.Second, asked: i == 2})
	}
	results := map[time.Time]lab.WatchResult{
		at(0): {Sent: 2000, MaxGap: 3 * time.Millisecond, MaxGapAt: at(0).Add(time.Millisecond), HostSent: 400},
		at(1): {Sent: 2000, Lost: 3, WorstLost: 2, MaxGap: 12 * time.Millisecond, MaxGapAt: at(1).Add(lead + 5*time.Millisecond), HostSent: 400},
		at(2): {Sent: 2000, Lost: 4, WorstLost: 3, MaxGap: 14 * time.Millisecond, MaxGapAt: at(2), HostSent: 400, TCPMaxGap: time.Second},
		at(3): {Sent: 2000, HostSent: 400, HostLost: 1},
	}
	return windows, func(w traffic.Window) lab.WatchResult { return results[w.From] }
}

func TestSummarise(t *testing.T) {
	all := summarise(events())
	require.Len(t, all, 3)
	require.Equal(t, "none", all[0].Kind)
	kill := all[1]
	require.Equal(t, "kill", kill.Kind)
	require.Equal(t, 2, kill.Times)
	require.Equal(t, 4000, kill.Sent)
	require.Equal(t, 7, kill.Lost)
	require.Equal(t, 3, kill.MaxLost)
	require.Equal(t, ms(14), kill.MaxGapMillis)
	require.Equal(t, ms(1000), kill.TCPMaxGapMillis)
	require.Equal(t, 800, kill.HostSent)
	require.Equal(t, ms(2000), kill.MaxBackMillis)
	require.Equal(t, 1, kill.AskedFor)
	require.Equal(t, 1, kill.Broken, "the first is within 10 ms and the noise")
	require.Equal(t, 2, kill.LimitLost)
	require.Equal(t, ms(5), kill.Events[0].GapAfterMillis)
	require.Equal(t, 1, all[2].Broken)
	require.Contains(t, failoverTable(all), "killed (SIGKILL)   2      4000      7     3                14.0 ms")
	require.Empty(t, failoverTable(nil))
}

func TestJudge(t *testing.T) {
	windows, result := events()
	err := judge(windows, result, lab.LimitsOf)
	require.ErrorContains(t, err, "kill 2: a stream of 1000 packets/s lost 3, at most 2 is promised")
	require.ErrorContains(t, err, "a gap of 14.0 ms, at most 10.0 ms is promised (and 3.0 ms the machine shows while nothing happens)")
	require.ErrorContains(t, err, "restart 1: 1 of 400 of the nodes' own pings were lost")
	require.NotContains(t, err.Error(), "kill 1")
	require.NoError(t, judge(windows[:2], result, lab.LimitsOf))
	require.Error(t, judge(windows[:2], func(w traffic.Window) lab.WatchResult {
		r := result(w)
		r.Err = errors.New("wrong data")
		return r
	}, lab.BoundsOf))
	err = judge(windows, result, lab.BoundsOf)
	require.ErrorContains(t, err, "restart 1: 1 of 400 of the nodes' own pings were lost", "no bound excuses that")
	require.NotContains(t, err.Error(), "kill")
}

func TestNoise(t *testing.T) {
	for n, want := range map[int]time.Duration{0: 0, 1: 1, 9: 9, 10: 9, 11: 10, 20: 18} {
		var windows []window
		for i := range n {
			windows = append(windows, window{kind: lab.DisturbNone, in: traffic.Window{From: at(n - i)}})
		}
		got := noise(windows, func(w traffic.Window) lab.WatchResult {
			return lab.WatchResult{MaxGap: time.Duration(w.From.Unix() - 1000)}
		})
		require.Equal(t, want, got, "%d windows", n)
	}
}
