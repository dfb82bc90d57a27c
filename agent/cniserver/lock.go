package cniserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// DefaultLock is the name of the abstract unix socket that one agent in each
// network namespace holds: what an agent programs is the namespace's, so a second
// one would take the first one's routes away, whatever folders the two have.
const DefaultLock = "sidewinder-agent"

// nodeLock is a bound abstract socket: its name is unique within the network
// namespace, and free again when the process is gone, however it ended.
type nodeLock struct{ l *net.UnixListener }

// takeLock takes the lock of this network namespace. An agent that holds it is an
// error that matches ErrInUse and names the process. Anybody in the namespace
// could bind the name; a process that is neither root nor of this user is no
// agent, and does not keep one from starting.
func takeLock(name string, log logrus.FieldLogger) (*nodeLock, error) {
	addr := &net.UnixAddr{Name: "@" + name, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	switch {
	case err == nil:
		go refuse(l)
		return &nodeLock{l}, nil
	case !errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("lock of the network namespace (unix socket @%s): %w", name, err)
	}
	holder, known := lockHolder(addr)
	switch {
	case !known:
		return nil, fmt.Errorf("this network namespace: %w (stop the other one: it holds the unix socket @%s, see ss -xlp)", ErrInUse, name)
	case holder.Uid != 0 && int(holder.Uid) != os.Geteuid():
		log.WithFields(logrus.Fields{"pid": holder.Pid, "uid": holder.Uid}).
			Warn("a process that is no agent holds the unix socket @" + name + "; a second agent would not be noticed")
		return &nodeLock{}, nil
	}
	return nil, fmt.Errorf("this network namespace: %w (stop the other one, process %d)", ErrInUse, holder.Pid)
}

// lockHolder asks the kernel who listens there.
func lockHolder(addr *net.UnixAddr) (*unix.Ucred, bool) {
	c, err := net.DialTimeout("unix", addr.Name, time.Second)
	if err != nil {
		return nil, false
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, false
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, err == nil && credErr == nil
}

// refuse closes what connects, so that the next one who asks is not kept waiting.
func refuse(l *net.UnixListener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // Out of descriptors, for one.
			continue
		}
		_ = c.Close()
	}
}

// release gives the lock back. It may be called again.
func (n *nodeLock) release() {
	if n.l != nil {
		_ = n.l.Close()
	}
}
