package supervise

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// ErrForeignVPP: the API socket is answered by a process that was not started
// here, or has left the process group; it could be neither watched nor ended.
var ErrForeignVPP = errors.New("VPP is not under supervision")

// vppPID is the process that answers at the API socket. It must be of the
// group.
func vppPID(socket string, g *group) (int, error) {
	pid, err := peer(socket)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", socket, err)
	}
	if !g.has(pid) {
		who := fmt.Sprintf("process %d", pid)
		if pid == 0 {
			who = "a process of another PID namespace"
		}
		return 0, fmt.Errorf("%w: %s answers at %s, and is not of the process group %d that was started; let SIDEWINDER_VPP or --vpp name vpp itself, or a wrapper that runs it in the foreground and in its own process group",
			ErrForeignVPP, who, socket, g.leader)
	}
	return pid, nil
}

// peer is the process that listens at a Unix socket (SO_PEERCRED, unix(7)).
func peer(socket string) (int, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if cerr != nil {
		return 0, fmt.Errorf("SO_PEERCRED: %w", cerr)
	}
	return int(cred.Pid), nil
}
