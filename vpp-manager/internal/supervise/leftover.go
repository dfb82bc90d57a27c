package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

// ErrLeftover: a VPP of an earlier manager cannot be ended.
var ErrLeftover = errors.New("a VPP of an earlier vpp-manager does not end")

// EndLeftover ends the VPP that a killed manager left behind, see endLeftover.
// The caller must have the run directory for itself (see Lock).
func EndLeftover(conf startup.Config) error { return endLeftover(conf) }

// endLeftover ends the VPP of a manager that was killed. Started directly, VPP
// dies with its manager; run by a wrapper, it does not: it would hold memory
// and interfaces beside the next one. vpp.pid names it, and that process is it
// only if it was started with the configuration of this run directory.
func endLeftover(conf startup.Config) error {
	raw, err := os.ReadFile(conf.PIDFile())
	if err != nil {
		return nil // no record, no leftover
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(raw)))
	if err != nil || pid <= 1 {
		return nil // as above
	}
	// A handle, so that the process looked at is the one that is ended.
	proc, err := os.FindProcess(pid)
	if err != nil {
		return nil // it has ended
	}
	defer func() { _ = proc.Release() }()
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil || !slices.Contains(strings.Split(string(cmdline), "\x00"), conf.ConfFile()) {
		return nil // it has ended; the number is another's
	}
	if err := proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%w: process %d: %w", ErrLeftover, pid, err)
	}
	for deadline := time.Now().Add(killWait); ; time.Sleep(poll) {
		if _, alive := processGroup(pid); !alive {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: process %d has got SIGKILL and lives on; choose another --run-dir", ErrLeftover, pid)
		}
	}
}
