package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

// ErrUnsafeRunDir: others could replace the files of the run directory.
var ErrUnsafeRunDir = errors.New("run directory is not safe")

// Lock makes the run directory and takes it for this process, until unlock is
// called or the process ends. A directory that others can write to is
// ErrUnsafeRunDir.
func Lock(conf startup.Config) (unlock func(), err error) {
	if err := startup.CheckRunDir(conf.RunDir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(conf.RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	if err := checkOwner(conf.RunDir); err != nil {
		return nil, err
	}
	// Nobody else may open it: who can read it can lock it.
	f, err := os.OpenFile(conf.LockFile(), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	if err := f.Chmod(0o600); err != nil {
		f.Close()
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

// checkOwner refuses a directory in which somebody else can make or replace
// files.
func checkOwner(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("run directory %s: %w", dir, err)
	}
	if uid := os.Geteuid(); int(st.Uid) != uid {
		return fmt.Errorf("%w: %s belongs to user %d, this is user %d; choose another --run-dir", ErrUnsafeRunDir, dir, st.Uid, uid)
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("%w: others than its owner can write to %s (mode %04o); chmod go-w it, or choose another --run-dir", ErrUnsafeRunDir, dir, st.Mode&0o7777)
	}
	return nil
}

// writeFile replaces a file as a whole. A symbolic link in its place is
// replaced, not followed.
func writeFile(path, text string) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := remove(tmp); err != nil {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}
