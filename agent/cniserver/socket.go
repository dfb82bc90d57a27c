package cniserver

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// maxSocketPath is the kernel's limit for a unix socket's path, less the
// suffix under which it is first made and the final NUL (unix(7)).
const maxSocketPath = 108 - len(suffixTemp) - 1

func checkSocketPath(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("socket: %q is not an absolute path", path)
	}
	if len(path) > maxSocketPath {
		return fmt.Errorf("socket: %s is longer than %d bytes", path, maxSocketPath)
	}
	return nil
}

// listener is a unix socket that is mode 0600 from the moment it can be seen.
type listener struct {
	*net.UnixListener
	path string
	made os.FileInfo
	once sync.Once
}

// listen makes the socket and its folder. The socket of a dead agent is
// replaced, that of a live one is not. It is made under another name, closed to
// others, and then renamed: there is no moment at which it is open to everyone
// or missing.
func listen(path string) (*listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if err := checkStale(path); err != nil {
		return nil, err
	}
	temp := path + suffixTemp
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	out := &listener{UnixListener: l, path: path}
	err = os.Chmod(temp, 0o600)
	if err == nil {
		out.made, err = os.Lstat(temp)
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		l.Close()
		_ = os.Remove(temp)
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return out, nil
}

// checkStale refuses to take the place of what is alive or is no socket.
func checkStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("socket %s: there is something else of that name (%s); remove it or choose another path", path, fi.Mode().Type())
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		fallthrough
	case errors.Is(err, syscall.EAGAIN): // Its backlog is full: alive, but hung.
		return fmt.Errorf("socket %s: %w (stop the other one, or give this one its own socket)", path, ErrInUse)
	}
	return nil
}

// remove takes the socket away, if it is still this one.
func (l *listener) remove() {
	l.once.Do(func() {
		if fi, err := os.Lstat(l.path); err == nil && os.SameFile(fi, l.made) {
			_ = os.Remove(l.path)
		}
	})
}
