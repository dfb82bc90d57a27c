package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sidewinder-net/sidewinder/agent/config"
)

// Kinds of demo.
const (
	kindAuto  = "auto"
	kindMixed = "mixed"
)

// choice is which dataplane the nodes get, and why.
type choice struct {
	// kind is config.DataplaneLinux, config.DataplaneVPP or kindMixed.
	kind, why string
	// vpp is the vpp program; empty when no node runs it.
	vpp string
}

// choose decides. Asked for VPP, it fails where there is none; left to itself,
// it falls back to the kernel.
func choose(ctx context.Context, want, vppBin string) (choice, error) {
	switch want {
	case config.DataplaneLinux:
		return choice{kind: want, why: "as asked for"}, nil
	case config.DataplaneVPP, kindMixed, kindAuto:
	default:
		return choice{}, fmt.Errorf("dataplane: %q is not one of auto, vpp, linux, mixed", want)
	}
	path, what, err := findVPP(ctx, vppBin)
	switch {
	case err == nil && want == kindAuto && os.Geteuid() != 0:
		return choice{kind: config.DataplaneLinux, why: what + " would do, but needs root"}, nil
	case err == nil && want == kindAuto:
		return choice{kind: config.DataplaneVPP, why: what + " was found", vpp: path}, nil
	case err == nil:
		return choice{kind: want, why: "as asked for; " + what, vpp: path}, nil
	case want == kindAuto:
		return choice{kind: config.DataplaneLinux, why: fmt.Sprintf("the kernel's SRv6, because no usable VPP was found (%v)", err)}, nil
	}
	return choice{}, fmt.Errorf("dataplane %s: %w; install VPP 25.10 (FD.io's packages) or point SIDEWINDER_VPP at it", want, err)
}

func (c choice) usesVPP() bool { return c.vpp != "" }

// dataplane of a node. Mixed: odd nodes on VPP.
func (c choice) dataplane(node int) string {
	if c.kind == kindMixed {
		if node%2 == 1 {
			return config.DataplaneVPP
		}
		return config.DataplaneLinux
	}
	return c.kind
}

// findVPP gives the vpp program and what it is.
func findVPP(_ context.Context, given string) (path, what string, err error) {
	if given == "" {
		given = os.Getenv("SIDEWINDER_VPP")
	}
	if given == "" {
		given = "vpp"
	}
	path, err = exec.LookPath(given)
	if err != nil {
		return "", "", errors.New("VPP not found")
	}
	return path, path, nil
}

// vppctlFor is the vppctl that belongs to a vpp program.
func vppctlFor(vpp string) string {
	beside := filepath.Join(filepath.Dir(vpp), "vppctl")
	if _, err := os.Stat(beside); err == nil {
		return beside
	}
	return "vppctl"
}
