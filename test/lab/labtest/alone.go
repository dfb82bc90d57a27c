package labtest

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Alone waits until no other test of this machine measures traffic, and keeps the
// others waiting until this one ends: packages are tested side by side, and what
// one loses would be the other's doing.
func Alone(tb testing.TB) {
	tb.Helper()
	path := filepath.Join("/tmp", "sidewinder-labtest.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		tb.Logf("other tests may disturb this one: %v", err)
		return
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		tb.Logf("other tests may disturb this one: %v", err)
	}
	tb.Cleanup(func() { _ = f.Close() })
}
