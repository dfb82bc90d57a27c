// Package limits raises the resource limits that VPP inherits, and says where
// the kernel puts its core dumps.
package limits

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/api/node"
)

// ErrRefused: the kernel does not let a limit be raised.
var ErrRefused = errors.New("resource limit refused")

// mostFiles is what VPP may open: two sockets for each queue and client of
// hundreds of interfaces, with room.
const mostFiles = 1 << 20

// Raise lifts this process's limits of locked memory and of open files; what is
// started from now on inherits them. Its errors are ErrRefused, one for each
// limit; the other one is raised nevertheless.
func Raise() error {
	memory := raise(unix.RLIMIT_MEMLOCK, unix.RLIM_INFINITY,
		"locked memory (memlock)", "AF_XDP sockets lock their packet buffers, and the kernel refuses them (ENOBUFS)")
	if canLock() {
		memory = nil // it is not counted then
	}
	return errors.Join(
		memory,
		raise(unix.RLIMIT_NOFILE, min(mostFiles, openFiles()),
			"open files (nofile)", "VPP has several for each interface"),
	)
}

// canLock: this process has CAP_IPC_LOCK, with which locked memory has no limit.
func canLock() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // version 3 has two words
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}

// openFiles is what the kernel allows at most.
func openFiles() uint64 {
	raw, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return mostFiles
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil {
		return mostFiles
	}
	return n
}

func raise(which int, want uint64, name, why string) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(which, &l); err != nil {
		return err
	}
	if l.Cur >= want {
		return nil
	}
	if err := unix.Setrlimit(which, &unix.Rlimit{Cur: want, Max: max(want, l.Max)}); err == nil {
		return nil
	}
	// As far as one may without privilege.
	err := unix.Setrlimit(which, &unix.Rlimit{Cur: min(want, l.Max), Max: l.Max})
	if err == nil && l.Max >= want {
		return nil
	}
	return errors.Join(err, fmt.Errorf("%w: %s: at most %s here, %s wanted: %s; give vpp-manager CAP_SYS_RESOURCE, or raise the limit of its service or container",
		ErrRefused, name, words(l.Max), words(want), why))
}

func words(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// Cores says in words where a core dump of VPP goes under root ("/", but for
// tests), as the machine's core_pattern has it (core(5)). problem: none will be
// found there.
func Cores(root, runDir string) (where string, problem bool) {
	raw, err := os.ReadFile(corePattern(root))
	if err != nil {
		return fmt.Sprintf("the kernel's core_pattern cannot be read: %v", err), true
	}
	pattern := strings.TrimSpace(string(raw))
	if program, ok := strings.CutPrefix(pattern, "|"); ok {
		words := strings.Fields(program)
		if len(words) == 0 {
			return "core_pattern is a pipe to no program", true
		}
		// It runs in the initial namespaces: from within a container its
		// absence proves nothing, yet nobody here will see the dump.
		if _, err := exec.LookPath(filepath.Join(root, words[0])); err != nil {
			return fmt.Sprintf("core_pattern pipes dumps to %s, which is not here: on the host, if anywhere", words[0]), true
		}
		return "core_pattern pipes dumps to " + words[0], false
	}
	switch {
	case pattern == "":
		return "core_pattern is empty: the kernel writes no dumps", true
	case filepath.IsAbs(pattern):
		dir := filepath.Dir(pattern)
		if st, err := os.Stat(filepath.Join(root, dir)); err != nil || !st.IsDir() {
			return fmt.Sprintf("core_pattern is %s, and the folder %s is not there", pattern, dir), true
		}
		return "dumps go to " + pattern, false
	}
	return "dumps go to " + filepath.Join(runDir, pattern), false
}

// CoresFile in the run directory remembers core_pattern: what it was set to, and
// what it was before. A reboot forgets both.
const CoresFile = "core_pattern.before"

// SetCores writes core_pattern, which is the whole machine's. RestoreCores puts
// the old one back, also after this process was killed.
func SetCores(root, runDir, pattern string) error {
	// core(5): the kernel keeps 127 bytes.
	if n := len(pattern); n == 0 || n > 127 || strings.ContainsAny(pattern, "\n\x00") {
		return fmt.Errorf("core_pattern: %q: 1 to 127 characters in one line are possible", pattern)
	}
	path := corePattern(root)
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("core_pattern: %w", err)
	}
	memory := pattern + "\n" + strings.TrimSpace(string(old)) + "\n"
	if err := node.WriteFile(filepath.Join(runDir, CoresFile), []byte(memory), 0o600); err != nil {
		return fmt.Errorf("core_pattern: %w", err)
	}
	if err := os.WriteFile(path, []byte(pattern+"\n"), 0o644); err != nil {
		return errors.Join(fmt.Errorf("core_pattern: %w", err), os.Remove(filepath.Join(runDir, CoresFile)))
	}
	return nil
}

// RestoreCores undoes a SetCores of this run directory that was not undone. What
// somebody else has set since stays.
func RestoreCores(root, runDir string) error {
	file := filepath.Join(runDir, CoresFile)
	raw, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("core_pattern: %w", err)
	}
	set, before, _ := strings.Cut(string(raw), "\n")
	now, err := os.ReadFile(corePattern(root))
	if err == nil && strings.TrimSpace(string(now)) == strings.TrimSpace(set) {
		err = os.WriteFile(corePattern(root), []byte(before), 0o644)
	}
	if err != nil {
		return fmt.Errorf("core_pattern: %w", err)
	}
	return os.Remove(file)
}

func corePattern(root string) string { return filepath.Join(root, "proc/sys/kernel/core_pattern") }
