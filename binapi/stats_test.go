package binapi_test

import (
	"context"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/binapi"
)

func TestStatsAndPing(t *testing.T) {
	socket, process := startVPP(t)
	c := dial(t, binapi.Options{Socket: socket})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(t, c.Ping(ctx))
	require.NoError(t, c.Ping(ctx), "one connection takes many")

	s, err := binapi.OpenStats(ctx, filepath.Join(filepath.Dir(socket), "stats.sock"))
	require.NoError(t, err)
	v, err := s.Vitals()
	require.NoError(t, err)
	require.NotEmpty(t, v.Loops, "the main thread is there")

	// What the segment says of packets is what VPP sends.
	require.NoError(t, cli(t, c, "create loopback interface"))
	require.NoError(t, cli(t, c, "set interface state loop0 up"))
	require.NoError(t, cli(t, c, "set interface ip address loop0 10.0.0.1/24"))
	before, sent, err := s.Packets()
	require.NoError(t, err)
	require.Zero(t, before)
	require.NoError(t, cli(t, c, "packet-generator new { name x limit 7 size 64-64 interface loop0 node ethernet-input data { IP4: 1.2.3 -> 4.5.6 UDP: 10.0.0.2 -> 10.0.0.3 UDP: 1 -> 2 incrementing 8 } }"))
	require.NoError(t, cli(t, c, "packet-generator enable"))
	require.Eventually(t, func() bool {
		rx, _, err := s.Packets()
		return err == nil && rx >= 7
	}, 5*time.Second, 10*time.Millisecond)
	_, after, err := s.Packets()
	require.NoError(t, err)
	require.GreaterOrEqual(t, after, sent)

	// A VPP that is stopped answers no ping; its statistics can be read.
	require.NoError(t, process.Signal(syscall.SIGSTOP))
	short, cancelShort := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancelShort()
	begin := time.Now()
	require.ErrorIs(t, c.Ping(short), context.DeadlineExceeded)
	require.Less(t, time.Since(begin), time.Second)
	require.ErrorIs(t, c.Ping(ctx), context.DeadlineExceeded, "the connection is of no further use")
	a, err := s.Vitals()
	require.NoError(t, err)
	b, err := s.Vitals()
	require.NoError(t, err)
	require.Equal(t, a, b)
	other, cancelOther := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancelOther()
	_, err = binapi.OpenStats(other, filepath.Join(filepath.Dir(socket), "stats.sock"))
	require.ErrorIs(t, err, binapi.ErrNotConnectable, "VPP does not hand it over")

	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	_, err = s.Vitals()
	require.ErrorIs(t, err, binapi.ErrDisconnected)
	_, _, err = s.Packets()
	require.ErrorIs(t, err, binapi.ErrDisconnected)
}

func TestStatsOfSomethingElse(t *testing.T) {
	dir := t.TempDir()
	_, err := binapi.OpenStats(context.Background(), filepath.Join(dir, "none"))
	require.ErrorIs(t, err, binapi.ErrNotConnectable)
	l, err := net.Listen("unixpacket", filepath.Join(dir, "s"))
	require.NoError(t, err)
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte("hello")) // no descriptor
			_ = c.Close()
		}
	}()
	_, err = binapi.OpenStats(context.Background(), filepath.Join(dir, "s"))
	require.ErrorContains(t, err, "no file descriptor")
}

func cli(t *testing.T, c *binapi.Conn, command string) error {
	t.Helper()
	var out string
	call := binapi.CLI(command, &out)
	if err := c.Do(context.Background(), call); err != nil {
		return err
	}
	return call.Err
}
