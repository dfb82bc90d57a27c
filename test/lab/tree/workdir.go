package tree

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Files of a work directory.
const (
	dirPrefix  = "sidewinder-lab-"
	fileLock   = "lock"
	fileInfo   = "lab.json"
	fileKept   = "kept"
	sweepGuard = ".sidewinder-lab-sweep-"
)

// Info describes a lab's work directory.
type Info struct {
	ID          string    `json:"id"`
	Dir         string    `json:"-"`
	PID         int       `json:"pid"`
	Description string    `json:"description"`
	Started     time.Time `json:"started"`
	// Running: the outer process lives. Otherwise only files are left.
	Running bool `json:"-"`
	// Kept: the lab failed and its logs were left for people.
	Kept bool `json:"-"`
}

// ID is the name of the lab whose work directory this is.
func ID(dir string) string { return strings.TrimPrefix(filepath.Base(dir), dirPrefix) }

// workDir is the outer process's hold on its directory. The lock is the
// kernel's (flock), so it ends with the process whatever ends it.
type workDir struct {
	id, path string
	lock     *os.File
}

// baseDir is where work directories live. /run is covered inside the tree.
func baseDir() string {
	base := os.TempDir()
	if abs, err := filepath.Abs(base); err == nil {
		base = abs
	}
	if real, err := filepath.EvalSymlinks(base); err == nil {
		base = real
	}
	if base == "/run" || strings.HasPrefix(base, "/run/") {
		return "/tmp"
	}
	return base
}

// guard serialises making, listing and sweeping directories among one user's
// labs.
func guard(base string) (release func(), err error) {
	path := filepath.Join(base, fmt.Sprintf("%s%d", sweepGuard, os.Geteuid()))
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		f := os.NewFile(uintptr(fd), path)
		if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// The last holder removes the file, so that a lab leaves none behind:
		// what was locked may be a file that is no longer there.
		if locked, err := f.Stat(); err == nil {
			if now, err := os.Lstat(path); err == nil && os.SameFile(locked, now) {
				return func() { _ = os.Remove(path); f.Close() }, nil
			}
		}
		f.Close()
	}
}

func newWorkDir(description string) (*workDir, error) {
	base := baseDir()
	release, err := guard(base)
	if err != nil {
		return nil, err
	}
	defer release()
	path, err := os.MkdirTemp(base, dirPrefix)
	if err != nil {
		return nil, fmt.Errorf("work directory: %w", err)
	}
	d := &workDir{id: ID(path), path: path}
	if d.lock, err = lockFile(path, os.O_CREATE); err != nil {
		os.RemoveAll(path)
		return nil, err
	}
	info := Info{ID: d.id, PID: os.Getpid(), Description: description, Started: time.Now()}
	raw, err := json.MarshalIndent(info, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(path, fileInfo), raw, 0o600)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("work directory: %w", err), d.remove())
	}
	return d, nil
}

// lockFile takes a directory's lock; EWOULDBLOCK when its lab is alive.
func lockFile(dir string, flags int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, fileLock), os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

func (d *workDir) remove() error {
	err := os.RemoveAll(d.path)
	d.lock.Close()
	return err
}

func (d *workDir) keep() {
	_ = os.WriteFile(filepath.Join(d.path, fileKept), nil, 0o600)
	_ = os.Remove(filepath.Join(d.path, ControlSocket))
	d.lock.Close()
}

// List gives this user's labs, and what is left of failed ones.
func List() ([]Info, error) {
	release, err := guard(baseDir())
	if err != nil {
		return nil, err
	}
	defer release()
	return list()
}

// list is List for a caller that holds the guard.
func list() ([]Info, error) {
	paths, err := filepath.Glob(filepath.Join(baseDir(), dirPrefix+"*"))
	if err != nil {
		return nil, err
	}
	var out []Info
	for _, p := range paths {
		info, ok := inspect(p)
		if ok {
			out = append(out, info)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Started.Before(out[j].Started) })
	return out, nil
}

// inspect reads one directory; false when it is not a lab of this user.
func inspect(path string) (Info, bool) {
	st, err := labDir(path)
	if err != nil {
		return Info{}, false
	}
	info := Info{ID: ID(path), Started: st.ModTime()}
	if raw, err := os.ReadFile(filepath.Join(path, fileInfo)); err == nil {
		_ = json.Unmarshal(raw, &info)
	}
	info.Dir = path
	if _, err := os.Stat(filepath.Join(path, fileKept)); err == nil {
		info.Kept = true
	}
	lock, err := lockFile(path, 0)
	switch {
	case err == nil:
		lock.Close()
	case errors.Is(err, unix.EWOULDBLOCK):
		info.Running = true
	case !errors.Is(err, fs.ErrNotExist):
		return Info{}, false
	}
	return info, true
}

// SweepStale removes the directories of labs whose outer process died without
// being able to. Logs kept on purpose stay.
func SweepStale() {
	release, err := guard(baseDir())
	if err != nil {
		return // another user's file in the way: nothing is lost by not sweeping
	}
	defer release()
	labs, err := list()
	if err != nil {
		return
	}
	for _, l := range labs {
		if !l.Running && !l.Kept {
			_ = os.RemoveAll(l.Dir)
		}
	}
}

// Find returns the lab with this ID, or an error that lists what there is.
func Find(id string) (Info, error) {
	labs, err := List()
	if err != nil {
		return Info{}, err
	}
	var ids []string
	for _, l := range labs {
		if l.ID == id {
			return l, nil
		}
		if l.Running {
			ids = append(ids, l.ID)
		}
	}
	if len(ids) == 0 {
		return Info{}, fmt.Errorf("lab %q: not found; no lab of this user is running", id)
	}
	return Info{}, fmt.Errorf("lab %q: not found; running: %s", id, strings.Join(ids, ", "))
}

// Down ends a lab and waits until it is gone, or removes what a failed one left.
func Down(id string, timeout time.Duration) error {
	info, err := Find(id)
	if err != nil {
		return err
	}
	if !info.Running {
		return os.RemoveAll(info.Dir)
	}
	// Zero and below are whole groups of processes.
	if info.PID <= 1 {
		return fmt.Errorf("lab %s: %s names no process to end", id, filepath.Join(info.Dir, fileInfo))
	}
	if err := syscall.Kill(info.PID, syscall.SIGTERM); err != nil {
		return fmt.Errorf("lab %s: end process %d: %w", id, info.PID, err)
	}
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(info.Dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return fmt.Errorf("lab %s: process %d still runs %s after it was told to end; its logs are in %s", id, info.PID, timeout, info.Dir)
}
