package cniserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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

// listener is a unix socket that is mode 0600 from the moment it exists.
type listener struct {
	*net.UnixListener
	path string
	made os.FileInfo
	once sync.Once
}

// listen makes the socket and its folder. The socket of a dead agent is
// replaced, that of a live one is not. It is made under another name and then
// renamed: there is no moment at which it is missing, or there and deaf.
func listen(path string) (*listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	// One at a time, so that the second sees the first one's socket.
	unlock, err := lockFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	defer unlock()
	if err := checkStale(path); err != nil {
		return nil, err
	}
	temp := path + suffixTemp
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l, err := listenClosed(temp)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	out := &listener{UnixListener: l, path: path}
	out.made, err = os.Lstat(temp)
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

// listenClosed makes a socket that is closed to others: Linux gives the file the
// mode that the socket has when it is bound.
func listenClosed(path string) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmodErr error
		err := c.Control(func(fd uintptr) { chmodErr = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, chmodErr)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false)
	return u, nil
}

// folderPatience is how long another agent may take to make its socket.
const folderPatience = 3 * time.Second

// lockFolder locks the socket's folder while a socket is made in it.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK), time.Since(begin) > folderPatience:
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", dir, err)
		}
	}
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

// discard closes and removes the socket of a server that is never run.
func (l *listener) discard() {
	l.remove()
	_ = l.Close()
}
