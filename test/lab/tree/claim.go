package tree

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// aliveFD is the descriptor on which init has the outer process's pipe.
const aliveFD = 3

// ErrNotOurs: a process that has a lab's name and environment is not where the
// lab would have put it. Init kills every process it sees and removes a
// directory, so it does nothing at all there.
var ErrNotOurs = errors.New("this is no lab's own process tree")

// hello is what the outer process leaves in the pipe before it starts init. An
// environment is inherited by whoever; this is not.
type hello struct {
	Inside Inside `json:"inside"`
	// Outer are the namespaces that init must have left.
	Outer namespaces `json:"outer"`
}

// namespaces are the kernel's names of two of them ("pid:[4026531836]").
type namespaces struct {
	PID   string `json:"pid"`
	Mount string `json:"mount"`
}

func ownNamespaces() (namespaces, error) {
	pid, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return namespaces{}, err
	}
	mount, err := os.Readlink("/proc/self/ns/mnt")
	return namespaces{PID: pid, Mount: mount}, err
}

// greet writes the hello. The pipe is empty and has room for it: nothing waits.
func greet(w *os.File, in Inside) error {
	own, err := ownNamespaces()
	if err != nil {
		return err
	}
	raw, err := json.Marshal(hello{Inside: in, Outer: own})
	if err != nil {
		return err
	}
	_, err = w.Write(raw)
	return err
}

// claimed is a tree that was found to be a lab's own, with init as its PID 1.
type claimed struct {
	in    Inside
	outer namespaces
	// dir is the work directory as it was at the start.
	dir os.FileInfo
	// alive is the pipe: its end means that the outer process is gone.
	alive *os.File
}

// claim finds out whether this process is the init of a lab; ErrNotOurs when
// anything speaks against it. It changes nothing.
func claim() (*claimed, error) {
	var in Inside
	if err := json.Unmarshal([]byte(os.Getenv(envInside)), &in); err != nil {
		return nil, fmt.Errorf("%w: %s is not set", ErrNotOurs, envInside)
	}
	if pid := os.Getpid(); pid != 1 {
		return nil, fmt.Errorf("%w: process %d is not the first of its PID namespace", ErrNotOurs, pid)
	}
	h, err := readHello()
	if err != nil {
		return nil, fmt.Errorf("%w: the pipe to the outer process: %w", ErrNotOurs, err)
	}
	if h.Inside != in {
		return nil, fmt.Errorf("%w: %s does not say what the outer process says", ErrNotOurs, envInside)
	}
	c := &claimed{in: in, outer: h.Outer}
	if err := c.apart(); err != nil {
		return nil, err
	}
	if c.dir, err = labDir(in.Dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotOurs, err)
	}
	unix.CloseOnExec(aliveFD)
	c.alive = os.NewFile(aliveFD, "outer")
	return c, nil
}

// readHello takes the hello from the pipe. Without a pipe the descriptor may be
// anything, such as one of the Go runtime's own: it is left alone then.
func readHello() (hello, error) {
	var h hello
	var st unix.Stat_t
	if err := unix.Fstat(aliveFD, &st); err != nil {
		return h, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return h, fmt.Errorf("descriptor %d is not a pipe", aliveFD)
	}
	// It was written before this process was started.
	ready := []unix.PollFd{{Fd: aliveFD, Events: unix.POLLIN}}
	if _, err := unix.Poll(ready, 0); err != nil && !errors.Is(err, unix.EINTR) {
		return h, err
	}
	if ready[0].Revents&unix.POLLIN == 0 {
		return h, errors.New("nothing was left in it")
	}
	buf := make([]byte, 64<<10)
	n, err := unix.Read(aliveFD, buf)
	if err != nil {
		return h, err
	}
	return h, json.Unmarshal(buf[:n], &h)
}

// apart is nil when this process is PID 1 in a PID and a mount namespace that
// are not the outer process's: only there may it kill and mount.
func (c *claimed) apart() error {
	own, err := ownNamespaces()
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNotOurs, err)
	case os.Getpid() != 1:
		return fmt.Errorf("%w: process %d is not the first of its PID namespace", ErrNotOurs, os.Getpid())
	case c.outer.PID == "" || own.PID == c.outer.PID:
		return fmt.Errorf("%w: the PID namespace %s is not the lab's own", ErrNotOurs, own.PID)
	case c.outer.Mount == "" || own.Mount == c.outer.Mount:
		return fmt.Errorf("%w: the mount namespace %s is not the lab's own", ErrNotOurs, own.Mount)
	}
	return nil
}

// labDir is a lab's work directory of this user; an error when the path is none
// by its name, its kind or its owner.
func labDir(path string) (os.FileInfo, error) {
	number, ok := strings.CutPrefix(filepath.Base(path), dirPrefix)
	if !ok || number == "" || strings.Trim(number, "0123456789") != "" || !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, fmt.Errorf("%q: is not the name of a work directory (%s and a number)", path, dirPrefix)
	}
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("%s: %w: is not a directory", path, fs.ErrInvalid)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s: belongs to another user", path)
	}
	return st, nil
}

// underInit tells whether this process was started by the init of a lab.
func underInit() bool {
	raw, err := os.ReadFile("/proc/1/cmdline")
	return err == nil && os.Getppid() == 1 && strings.HasPrefix(string(raw), argInit+"\x00")
}
