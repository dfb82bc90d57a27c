package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// startVPP starts the manager, which starts VPP, and waits for the API socket.
func (n *Node) startVPP(ctx context.Context) error {
	n.mu.Lock()
	p, err := startProcess(n.Name, "vpp-manager", n.logPath("vpp-manager"), filepath.Join(n.lab.opts.BinDir, binManager),
		"run", "--vpp", n.lab.opts.VPP, "--run-dir", n.VPPDir())
	n.manager = p
	n.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, ReadyTimeout)
	defer cancel()
	err = n.lab.poll(ctx, func(ctx context.Context) error {
		cctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := n.VPPShow(cctx, "show version")
		return err
	})
	if err != nil {
		return fmt.Errorf("VPP of %s: %w; the manager's log is %s", n.Name, err, n.logPath("vpp-manager"))
	}
	return nil
}

// showTries is how often a command is tried when the connection breaks.
const showTries = 4

// VPPShow runs a command of VPP's command line on a node that runs VPP.
func (n *Node) VPPShow(ctx context.Context, command string) (string, error) {
	if n.Dataplane != config.DataplaneVPP {
		return "", fmt.Errorf("%s does not run VPP", n.Name)
	}
	var err error
	for range showTries {
		var out string
		if out, err = n.vppShow(ctx, command); !errors.Is(err, binapi.ErrDisconnected) {
			return out, err
		}
	}
	return "", err
}

func (n *Node) vppShow(ctx context.Context, command string) (string, error) {
	c, err := binapi.Dial(ctx, binapi.Options{Socket: filepath.Join(n.VPPDir(), "api.sock")})
	if err != nil {
		return "", err
	}
	defer c.Close()
	var out string
	show := binapi.CLI(command, &out)
	if err := errors.Join(c.Do(ctx, show), show.Err); err != nil {
		return "", fmt.Errorf("VPP of %s: %s: %w", n.Name, command, err)
	}
	return out, nil
}

// maxLogBytes of one file are kept.
const maxLogBytes = 4 << 20

// saveVPPLogs copies VPP's own logs and configuration to where the other logs
// are: its directory goes with the lab.
func (n *Node) saveVPPLogs() {
	_ = filepath.WalkDir(n.VPPDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err != nil || info.Size() > maxLogBytes {
			return nil
		}
		if name := d.Name(); strings.HasSuffix(name, ".log") || strings.HasSuffix(name, ".conf") {
			if raw, err := os.ReadFile(path); err == nil {
				_ = os.WriteFile(n.logPath("vpp-"+strings.TrimSuffix(name, ".log")), raw, 0o644)
			}
		}
		return nil
	})
}
