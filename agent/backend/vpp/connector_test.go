package vpp

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// Status asks for the version all the time, also while nothing answers.
func TestVersionNeverWaits(t *testing.T) {
	b, err := New(context.Background(), Options{
		Socket: filepath.Join(t.TempDir(), "api.sock"), Locator: locator(0), Log: testLog(t), DialTimeout: time.Second,
	})
	require.NoError(t, err)
	defer b.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
	defer cancel()
	changes := b.Watch(ctx)
	var worst time.Duration
	for ctx.Err() == nil {
		begin := time.Now()
		require.Empty(t, b.Version())
		worst = max(worst, time.Since(begin))
		time.Sleep(5 * time.Millisecond)
	}
	require.Less(t, worst, 300*time.Millisecond)
	for range changes {
		t.Fatal("nothing came up")
	}
}

func TestVersionIsThatOfTheLastVPP(t *testing.T) {
	needVPP(t)
	inNetns(t)
	m := startVPP(t)
	b := newBackend(t, m, Options{DialTimeout: 100 * time.Millisecond})
	was := b.Version()
	require.Regexp(t, `^\d\d\.\d\d`, was)
	m.stop(t)
	require.Eventually(t, func() bool {
		_, err := b.Dump(context.Background())
		return err != nil
	}, 5*time.Second, 10*time.Millisecond)
	require.Equal(t, was, b.Version())
}

// All who want a connection share one attempt, and nobody waits longer than
// they said.
func TestOneAttemptForAll(t *testing.T) {
	var dials atomic.Int32
	c := connector{timeout: time.Minute, log: testLog(t), dial: func(ctx context.Context) (*binapi.Conn, error) {
		dials.Add(1)
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	impatient, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := c.get(impatient)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, dataplane.ErrDisconnected, "it is the caller who gave up")

	errs := make(chan error, 8)
	var started sync.WaitGroup
	for range cap(errs) {
		started.Add(1)
		go func() {
			started.Done()
			_, err := c.get(context.Background())
			errs <- err
		}()
	}
	started.Wait()
	time.Sleep(50 * time.Millisecond)
	begin := time.Now()
	require.NoError(t, c.close())
	for range cap(errs) {
		require.ErrorIs(t, <-errs, dataplane.ErrDisconnected)
	}
	require.Less(t, time.Since(begin), 5*time.Second, "closing ends the attempt")
	require.EqualValues(t, 1, dials.Load())
	_, err = c.get(context.Background())
	require.ErrorContains(t, err, "closed")
}

// A VPP that takes the connection and dies, again and again, is asked ever more
// rarely; one that had lasted is looked for at once.
func TestPausesGrowUntilAConnectionLasts(t *testing.T) {
	needVPP(t)
	inNetns(t)
	m := startVPP(t)
	const short = 4
	var mu sync.Mutex
	var dials []time.Time
	var died time.Time
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := connector{timeout: 5 * time.Second, log: testLog(t)}
	c.dial = func(ctx context.Context) (*binapi.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		dials = append(dials, time.Now())
		conn, err := binapi.Dial(ctx, binapi.Options{Socket: m.socket()})
		if err != nil {
			return nil, err
		}
		switch n := len(dials); {
		case n <= short:
			conn.Close()
		case n == short+1:
			time.AfterFunc(steady+200*time.Millisecond, func() {
				mu.Lock()
				died = time.Now()
				mu.Unlock()
				conn.Close()
			})
		default:
			cancel()
		}
		return conn, nil
	}
	var changes int
	c.keep(ctx, func() { changes++ })
	require.NoError(t, c.close())

	mu.Lock()
	defer mu.Unlock()
	require.Len(t, dials, short+2)
	pause := firstPause
	for i := 1; i <= short; i++ {
		require.GreaterOrEqual(t, dials[i].Sub(dials[i-1]), pause, "after short connection %d", i)
		pause *= 2
	}
	require.Less(t, dials[short+1].Sub(died), pause/2, "after one that lasted")
	require.GreaterOrEqual(t, changes, 2*(short+1))
}
