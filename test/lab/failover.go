package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/agent/status"
	nodeapi "github.com/sidewinder-net/sidewinder/api/node"
)

// Disturbance is something that happens to a node's VPP.
type Disturbance string

// The disturbances.
const (
	// DisturbKill is SIGKILL.
	DisturbKill Disturbance = "kill"
	// DisturbStop is SIGSTOP: VPP is there and does nothing.
	DisturbStop Disturbance = "stop"
	// DisturbRestart is a planned one: vpp-manager restart.
	DisturbRestart Disturbance = "restart"
	// DisturbCrashLoop kills VPP whenever it is ready, CrashLoop times in a row.
	DisturbCrashLoop Disturbance = "crashloop"
	// DisturbNone leaves VPP alone: what a measurement shows then is the
	// machine's own.
	DisturbNone Disturbance = "none"
)

// Disturbances are all that do something.
func Disturbances() []Disturbance {
	return []Disturbance{DisturbKill, DisturbStop, DisturbRestart, DisturbCrashLoop}
}

// CrashLoop is how many times DisturbCrashLoop kills VPP.
const CrashLoop = 3

// RunsVPP tells whether a VPP is meant to run on the node now.
func (n *Node) RunsVPP() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.manager != nil
}

// Manager is what the node's vpp-manager tells.
func (n *Node) Manager() (nodeapi.Manager, error) { return nodeapi.ReadManager(n.VPPDir()) }

// VPPProcess is the process ID of the node's VPP.
func (n *Node) VPPProcess() (int, error) {
	if m, err := n.Manager(); err == nil && m.PID > 0 {
		return m.PID, nil
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	path := filepath.Join(n.VPPDir(), "vpp.pid")
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("VPP of %s: does not run: %w", n.Name, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid < 2 {
		return 0, fmt.Errorf("VPP of %s: %s holds %q, no process ID", n.Name, path, raw)
	}
	return pid, nil
}

func (n *Node) signalVPP(sig syscall.Signal) (int, error) {
	pid, err := n.VPPProcess()
	if err != nil {
		return 0, err
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return 0, fmt.Errorf("VPP of %s: process %d: %s: %w", n.Name, pid, sig, err)
	}
	return pid, nil
}

// KillVPP ends VPP with SIGKILL, and gives the process ID that it had.
func (n *Node) KillVPP() (int, error) { return n.signalVPP(syscall.SIGKILL) }

// PauseVPP stops VPP (SIGSTOP) for good: it is there and does nothing. The
// manager has to find out.
func (n *Node) PauseVPP() (int, error) { return n.signalVPP(syscall.SIGSTOP) }

// RestartVPP is the operator's command for a planned restart. It returns when
// the manager says that it is done.
func (n *Node) RestartVPP(ctx context.Context) error {
	_, err := n.Exec(ctx, filepath.Join(n.lab.opts.BinDir, binManager), "restart", "--run-dir", n.VPPDir())
	return err
}

// StartVPP starts the manager, which starts VPP, on a node of a lab that was
// made without (Options.WithoutVPP).
func (n *Node) StartVPP(ctx context.Context) error {
	if n.Dataplane != config.DataplaneVPP {
		return fmt.Errorf("%s is not meant to run VPP", n.Name)
	}
	if n.RunsVPP() {
		return fmt.Errorf("vpp-manager of %s: is running already", n.Name)
	}
	return n.startVPP(ctx)
}

// StopVPP ends the manager in order, and VPP with it.
func (n *Node) StopVPP() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.manager == nil {
		return fmt.Errorf("vpp-manager of %s: is not running", n.Name)
	}
	err := n.manager.stop()
	n.manager = nil
	return err
}

// Disturb does something to the node's VPP and returns when it is done; what
// follows goes on.
func (n *Node) Disturb(ctx context.Context, what Disturbance) error {
	switch what {
	case DisturbKill:
		_, err := n.KillVPP()
		return err
	case DisturbStop:
		_, err := n.PauseVPP()
		return err
	case DisturbRestart:
		return n.RestartVPP(ctx)
	case DisturbCrashLoop:
		return n.CrashLoopVPP(ctx, CrashLoop)
	case DisturbNone:
		return nil
	}
	return fmt.Errorf("disturbance %q: is none", what)
}

// CrashLoopVPP kills VPP as soon as it answers, so many times in a row, or until
// the manager gives it up.
func (n *Node) CrashLoopVPP(ctx context.Context, times int) error {
	for i := range times {
		pid, err := n.KillVPP()
		if err != nil {
			return err
		}
		if i == times-1 {
			return nil
		}
		m, err := n.waitManager(ctx, func(m nodeapi.Manager) bool {
			return m.State == nodeapi.StateReady && m.PID != pid || m.State == nodeapi.StateGivenUp
		})
		if err != nil || m.State == nodeapi.StateGivenUp {
			return err
		}
	}
	return nil
}

// waitManager waits until the manager tells what is wanted.
func (n *Node) waitManager(ctx context.Context, want func(nodeapi.Manager) bool) (nodeapi.Manager, error) {
	ctx, cancel := context.WithTimeout(ctx, ReadyTimeout)
	defer cancel()
	var m nodeapi.Manager
	err := n.lab.pollEvery(ctx, 5*time.Millisecond, func(context.Context) error {
		var err error
		if m, err = n.Manager(); err != nil {
			return err
		}
		if !want(m) {
			return fmt.Errorf("vpp-manager of %s: VPP is %s (process %d), since %s", n.Name, m.State, m.PID, m.Since.Format(time.TimeOnly))
		}
		return nil
	})
	return m, err
}

// BackTimeout bounds the waiting for VPP after a disturbance.
const BackTimeout = 60 * time.Second

// impatience is how long a pause of the manager's may be before the lab does
// what an operator would: ask for a restart.
const impatience = 5 * time.Second

// WaitVPPBack waits until VPP carries the node's traffic after a disturbance
// that began at the given time. Where the manager has given VPP up, or waits
// long before its next start, it asks for a restart once; asked tells that.
func (n *Node) WaitVPPBack(ctx context.Context, disturbed time.Time) (s status.Status, asked bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, BackTimeout)
	defer cancel()
	err = n.lab.poll(ctx, func(ctx context.Context) error {
		m, err := n.Manager()
		if err == nil && !asked && (m.State == nodeapi.StateGivenUp || m.State == nodeapi.StateWaiting && time.Until(m.NextStart) > impatience) {
			asked = true
			if err := n.RestartVPP(ctx); err != nil {
				return err
			}
		}
		cctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if s, err = n.Status(cctx); err != nil {
			return err
		}
		if err := active(s, n); err != nil {
			return err
		}
		if s.Dataplane.Since.Before(disturbed) {
			return fmt.Errorf("%s: %s carries the traffic since %s, before VPP was disturbed", n.Name, s.Dataplane.Active, s.Dataplane.Since.Format(time.TimeOnly))
		}
		return nil
	})
	return s, asked, err
}

// active says why the dataplane that should carry a node's traffic does not: VPP
// where it runs, else the kernel.
func active(s status.Status, n *Node) error {
	want := config.DataplaneLinux
	if n.RunsVPP() {
		want = config.DataplaneVPP
	}
	if s.Dataplane.Active != want {
		return fmt.Errorf("%s: %q carries the traffic, not %q: %s", n.Name, s.Dataplane.Active, want, s.Dataplane.Reason)
	}
	return nil
}
