package traffic

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const tick = int64(time.Millisecond)

// regular is n messages, one a tick, each a tenth of a tick on the way.
func regular(n int) (sent, arrived []int64) {
	for i := range n {
		s := 1000*tick + int64(i)*tick
		sent, arrived = append(sent, s), append(arrived, s+tick/10)
	}
	return sent, arrived
}

func TestMeasure(t *testing.T) {
	at := func(n int64) time.Time { return time.Unix(0, 1000*tick+n*tick) }
	for name, c := range map[string]struct {
		spoil  func(sent, arrived []int64) ([]int64, []int64)
		window Window
		want   StreamResult
	}{
		"all in time": {
			want: StreamResult{Sent: 100, Received: 100, MaxSilence: ms(1), MaxDelay: us(100), MaxSendGap: ms(1)},
		},
		"one lost makes a gap of one interval": {
			spoil: func(s, a []int64) ([]int64, []int64) { a[50] = 0; return s, a },
			want:  StreamResult{Sent: 100, Received: 99, Lost: 1, MaxGap: ms(1), MaxSilence: ms(2), MaxDelay: us(100), MaxSendGap: ms(1)},
		},
		"ten lost": {
			spoil: func(s, a []int64) ([]int64, []int64) { clear(a[50:60]); return s, a },
			want:  StreamResult{Sent: 100, Received: 90, Lost: 10, MaxGap: ms(10), MaxSilence: ms(11), MaxDelay: us(100), MaxSendGap: ms(1)},
		},
		"held up, then all at once": {
			spoil: func(s, a []int64) ([]int64, []int64) {
				for i := 50; i < 70; i++ {
					a[i] = s[69] + tick/10
				}
				return s, a
			},
			want: StreamResult{Sent: 100, Received: 100, MaxGap: ms(19), MaxSilence: ms(20), MaxDelay: 19*time.Millisecond + us(100), MaxSendGap: ms(1)},
		},
		"a sender that pauses makes no gap": {
			spoil: func(s, a []int64) ([]int64, []int64) {
				for i := 50; i < 100; i++ {
					s[i] += 30 * tick
					a[i] += 30 * tick
				}
				return s, a
			},
			want: StreamResult{Sent: 100, Received: 100, MaxSilence: ms(31), MaxDelay: us(100), MaxSendGap: ms(31)},
		},
		"one lost before the sender pauses": {
			spoil: func(s, a []int64) ([]int64, []int64) {
				a[49] = 0
				for i := 50; i < 100; i++ {
					s[i] += 30 * tick
					a[i] += 30 * tick
				}
				return s, a
			},
			want: StreamResult{Sent: 100, Received: 99, Lost: 1, MaxGap: ms(31), MaxSilence: ms(32), MaxDelay: us(100), MaxSendGap: ms(31)},
		},
		"one that is early makes no gap": {
			spoil: func(s, a []int64) ([]int64, []int64) { a[50] = s[50] + tick/100; return s, a },
			want:  StreamResult{Sent: 100, Received: 100, MaxSilence: ms(1) + us(90), MaxDelay: us(100), MaxSendGap: ms(1)},
		},
		"one overtakes": {
			spoil: func(s, a []int64) ([]int64, []int64) { a[50] = s[51] + tick/5; return s, a },
			want:  StreamResult{Sent: 100, Received: 100, MaxGap: ms(1), MaxSilence: ms(2), MaxDelay: ms(1) + us(200), MaxSendGap: ms(1)},
		},
		"nothing comes at the end": {
			spoil: func(s, a []int64) ([]int64, []int64) { clear(a[90:]); return s, a },
			want:  StreamResult{Sent: 100, Received: 90, Lost: 10, MaxGap: ms(9), MaxSilence: ms(1), MaxDelay: us(100), MaxSendGap: ms(1)},
		},
		"nothing comes at all": {
			spoil: func(s, a []int64) ([]int64, []int64) { clear(a); return s, a },
			want:  StreamResult{Sent: 100, Lost: 100, MaxGap: ms(99), MaxSendGap: ms(1)},
		},
		"the window before": {
			spoil:  func(s, a []int64) ([]int64, []int64) { clear(a[50:60]); return s, a },
			window: Window{To: at(50)},
			want:   StreamResult{Sent: 50, Received: 50, MaxSilence: ms(11), MaxDelay: us(100), MaxSendGap: ms(1)},
		},
		"the window in which a gap begins": {
			spoil:  func(s, a []int64) ([]int64, []int64) { clear(a[50:60]); return s, a },
			window: Window{From: at(40), To: at(55)},
			want:   StreamResult{Sent: 15, Received: 10, Lost: 5, MaxGap: ms(10), MaxSilence: ms(11), MaxDelay: us(100), MaxSendGap: ms(1)},
		},
		"the window after": {
			spoil:  func(s, a []int64) ([]int64, []int64) { clear(a[50:60]); return s, a },
			window: Window{From: at(61)},
			want:   StreamResult{Sent: 39, Received: 39, MaxSilence: ms(1), MaxDelay: us(100), MaxSendGap: ms(1)},
		},
		"nothing sent": {spoil: func(_, _ []int64) ([]int64, []int64) { return nil, nil }},
	} {
		t.Run(name, func(t *testing.T) {
			sent, arrived := regular(100)
			if c.spoil != nil {
				sent, arrived = c.spoil(sent, arrived)
			}
			got := measure(sent, arrived, c.window)
			require.Equal(t, c.want.MaxGap == 0, got.MaxGapAt.IsZero())
			got.MaxGapAt = time.Time{}
			require.Equal(t, c.want, got)
		})
	}
}

func TestMeasureTellsWhenTheGapBegan(t *testing.T) {
	sent, arrived := regular(100)
	clear(arrived[50:60])
	require.Equal(t, sent[50]+tick/10, measure(sent, arrived, Window{}).MaxGapAt.UnixNano())
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }
func us(n int) time.Duration { return time.Duration(n) * time.Microsecond }

func TestTimelineArrivals(t *testing.T) {
	l := newTimeline()
	at := l.depart()
	require.False(t, l.arrive(1, at), "it was never sent")
	require.True(t, l.arrive(0, at+1))
	require.True(t, l.arrive(0, at+2))
	r := l.result(Window{})
	require.Equal(t, 1, r.Received)
	require.Equal(t, 1, r.Duplicates)
	require.EqualValues(t, 1, r.MaxDelay, "the first arrival counts")
	require.NoError(t, l.clockMoved())
	l.beginWall -= int64(time.Hour)
	require.ErrorContains(t, l.clockMoved(), "was moved by ")
}
