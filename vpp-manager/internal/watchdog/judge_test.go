package watchdog

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// feed gives the judge samples at the limits' period, made by f from their
// number, and tells when and how it decided.
func feed(l Limits, n int, every time.Duration, f func(i int, s *Sample)) (Verdict, time.Duration) {
	begin := time.Unix(1000, 0)
	var st State
	for i := range n {
		s := Sample{At: begin.Add(time.Duration(i) * every), Main: Thread{State: 'S', Ran: time.Duration(i) * time.Millisecond},
			Answers: uint64(i), Heartbeat: uint64(i)}
		f(i, &s)
		var v Verdict
		if st, v = Step(st, s, l); v != "" {
			return v, s.At.Sub(begin)
		}
	}
	return "", 0
}

func TestVerdicts(t *testing.T) {
	const period = 50 * time.Millisecond
	asked := time.Unix(1000, 0).Add(-10 * time.Millisecond)
	silent := func(s *Sample) { s.Answers, s.Heartbeat, s.Asked = 0, 0, asked }
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for name, tc := range map[string]struct {
		every time.Duration // 0: the period
		f     func(i int, s *Sample)
		want  string        // part of the verdict; empty: none
		by    time.Duration // at the latest
	}{
		"well": {f: func(int, *Sample) {}},
		"stopped": {
			f:    func(_ int, s *Sample) { silent(s); s.Main.State = 'T' },
			want: "stopped (state T)", by: ms(200),
		},
		"stopped, seen rarely, for this program does not run much either": {
			every: 120 * time.Millisecond,
			f:     func(_ int, s *Sample) { silent(s); s.Main.State = 'T' },
			want:  "stopped", by: ms(250),
		},
		"a worker has stopped first": {
			f: func(_ int, s *Sample) {
				silent(s)
				s.Main.State = 'D'
				s.Workers = []Worker{{Thread: Thread{State: 'R'}}, {Thread: Thread{State: 't'}}}
			},
			want: "stopped (state t)", by: ms(200),
		},
		"stopped for a moment, again and again": {
			f: func(i int, s *Sample) {
				if i%4 < 3 {
					s.Main.State = 'T'
				}
			},
		},
		"asleep with a question before it": {
			f:    func(_ int, s *Sample) { silent(s); s.Main.Ran = 7 },
			want: "asleep", by: ms(250),
		},
		"asleep, and each question is answered": {
			f: func(i int, s *Sample) { s.Main.Ran = 7; s.Asked = s.At; s.Heartbeat = 0 },
		},
		"asleep, no question": {
			f: func(_ int, s *Sample) { s.Main.Ran, s.Answers, s.Heartbeat = 7, 0, 0 }, want: "silent for 3", by: ms(3100),
		},
		"it wakes and sleeps and says nothing": {
			f: func(_ int, s *Sample) { silent(s) }, want: "silent for 3s (state S)", by: ms(3100),
		},
		"it computes for two seconds": {
			f: func(i int, s *Sample) {
				s.Main.State = 'R'
				if i%40 != 0 {
					s.Answers, s.Heartbeat = uint64(i/40), uint64(i/40)
					s.Asked = asked.Add(time.Duration(i / 40))
				}
			},
		},
		"it computes for ever": {
			f:    func(_ int, s *Sample) { silent(s); s.Main.State = 'R' },
			want: "silent for 3s (state R)", by: ms(3100),
		},
		"it waits in the kernel, as when it makes an interface": {
			f: func(i int, s *Sample) {
				s.Main = Thread{State: 'D'}
				s.Answers, s.Heartbeat = uint64(i/50), uint64(i/50)
				s.Asked = asked.Add(time.Duration(i / 50))
			},
		},
		"the machine sleeps for an hour": {
			every: time.Hour,
			f: func(i int, s *Sample) {
				silent(s)
				s.Main.State = 'R'
				if i > 3 {
					s.Answers = uint64(i)
				}
			},
		},
		"both are frozen with a question under way, and VPP is the last to go on": {
			f: func(i int, s *Sample) {
				if i >= 20 {
					s.At = s.At.Add(10 * time.Second)
				}
				if i == 19 || i == 20 {
					silent(s)
					s.Main.Ran, s.Answers, s.Heartbeat = ms(19), 19, 19
				}
			},
		},
		"asleep, seen rarely": {
			every: 190 * time.Millisecond,
			f:     func(_ int, s *Sample) { silent(s); s.Main.Ran = 7 },
			want:  "asleep", by: ms(390),
		},
		"API dead, VPP forwards": {
			f: func(_ int, s *Sample) { s.Answers = 0; s.Asked = asked }, want: "API has not answered", by: ms(10100),
		},
		"the statistics stand still, the API answers": {
			f: func(_ int, s *Sample) { s.Heartbeat = 0 },
		},
		"idle workers at a constant rate": {
			f: func(i int, s *Sample) {
				s.Workers = []Worker{{Thread: Thread{State: 'S', Ran: time.Duration(i) * time.Millisecond}, Loops: 99}}
			},
		},
		"a worker that computes gets nowhere": {
			f: func(i int, s *Sample) {
				s.Workers = []Worker{
					{Thread: Thread{State: 'R', Ran: time.Duration(i) * period}, Loops: uint64(1e6 + i)},
					{Thread: Thread{State: 'R', Ran: time.Duration(i) * period}, Loops: 1e6},
				}
			},
			want: "worker 1 computes", by: ms(3200),
		},
		"a worker that is starved": {
			f: func(i int, s *Sample) {
				s.Workers = []Worker{{Thread: Thread{State: 'R', Ran: 5}, Loops: 1e6}}
			},
		},
		"a worker that never wakes": {
			f: func(i int, s *Sample) {
				s.Workers = []Worker{{Thread: Thread{State: 'S', Ran: 5}, Loops: 99}}
			},
			want: "worker 0 does not wake", by: ms(3200),
		},
		"workers come and go": {
			f: func(i int, s *Sample) {
				s.Workers = make([]Worker, i%3)
				for w := range s.Workers {
					s.Workers[w].Thread = Thread{State: 'S', Ran: 5}
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			every := tc.every
			if every == 0 {
				every = period
			}
			v, at := feed(DefaultLimits(), 400, every, tc.f)
			if tc.want == "" {
				require.Empty(t, v)
				return
			}
			require.Contains(t, string(v), tc.want)
			require.LessOrEqual(t, at, tc.by)
		})
	}
}

// The same samples give the same verdict, and those before are not changed.
func TestStepIsPure(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var st State
	at := time.Unix(0, 0)
	for range 5000 {
		at = at.Add(time.Duration(r.IntN(200)) * time.Millisecond)
		s := Sample{At: at, Answers: uint64(r.IntN(2)), Heartbeat: uint64(r.IntN(2)), Main: Thread{State: "SRDTt"[r.IntN(5)], Ran: time.Duration(r.IntN(3))}}
		for range r.IntN(4) {
			s.Workers = append(s.Workers, Worker{Thread: Thread{State: "SRD"[r.IntN(3)], Ran: time.Duration(r.IntN(3))}, Loops: uint64(r.IntN(2))})
		}
		before := fmt.Sprintf("%+v", st)
		a, va := Step(st, s, DefaultLimits())
		b, vb := Step(st, s, DefaultLimits())
		require.Equal(t, a, b)
		require.Equal(t, va, vb)
		require.Equal(t, before, fmt.Sprintf("%+v", st))
		st = a
	}
}

func TestLimitsOffAreNoLimits(t *testing.T) {
	v, _ := feed(Limits{Period: time.Millisecond}, 1000, time.Second, func(_ int, s *Sample) { s.Main.State = 'T'; s.Answers, s.Heartbeat = 0, 0 })
	require.Empty(t, v)
}

func TestParseStat(t *testing.T) {
	th, comm, err := parseStat([]byte("7 (a b) c) S 1 7 7 0 -1 4194304 1 2 3 4 15 6 0 0 20 0 1 0 5 0 0"))
	require.NoError(t, err)
	require.Equal(t, "a b) c", string(comm))
	require.Equal(t, Thread{State: 'S', Ran: 210 * time.Millisecond}, th)
	for _, bad := range []string{"", "7 (x", "7 )x( S", "7 (x) S 1 2", "7 (x) S 1 7 7 0 -1 4194304 1 2 3 4 x 6 0"} {
		_, _, err := parseStat([]byte(bad))
		require.Error(t, err, bad)
	}
}
