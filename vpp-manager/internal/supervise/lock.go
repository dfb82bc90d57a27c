package supervise

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

// Lock makes the run directory and takes it for this process, until unlock is
// called or the process ends.
func Lock(conf startup.Config) (unlock func(), err error) {
	if err := os.MkdirAll(conf.RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	f, err := os.OpenFile(conf.LockFile(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("run directory %s is in use by another vpp-manager; stop it, or choose another --run-dir", conf.RunDir)
		}
		return nil, fmt.Errorf("run directory %s: %w", conf.RunDir, err)
	}
	return func() { f.Close() }, nil
}
