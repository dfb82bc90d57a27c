package binapi

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// listen answers each connection on a socket of its own with serve.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return path
}

// TestDialSaysNothing: what goes wrong is in the error, and not on the standard
// error, where GoVPP would write it.
func TestDialSaysNothing(t *testing.T) {
	const inside = "SIDEWINDER_TEST_DIAL"
	if os.Getenv(inside) != "" {
		socket := listen(t, func(c net.Conn) { c.Close() })
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		_, err := Dial(ctx, Options{Socket: socket})
		require.ErrorIs(t, err, ErrNotConnectable)
		require.ErrorContains(t, err, socket)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDialSaysNothing$")
	cmd.Env = append(os.Environ(), inside+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, string(out))
	require.Empty(t, stderr.String())
}

// TestDialSilentServer: one that takes the connection and never says a word does
// not hold Dial much longer than its context.
func TestDialSilentServer(t *testing.T) {
	done := make(chan struct{})
	defer close(done)
	socket := listen(t, func(c net.Conn) { <-done; c.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := Dial(ctx, Options{Socket: socket})
	require.ErrorIs(t, err, ErrNotConnectable)
	require.Less(t, time.Since(begin), time.Second)
}
