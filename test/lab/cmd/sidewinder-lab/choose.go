package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/test/lab/tree"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
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

// envChoice carries the choice from the outer process to the worker, which
// would come to the same one by trying VPP once more.
const envChoice = "SIDEWINDER_LAB_CHOICE"

func (c choice) pass() error {
	raw, err := json.Marshal([]string{c.kind, c.why, c.vpp})
	if err != nil {
		return err
	}
	return os.Setenv(envChoice, string(raw))
}

func inherited() (choice, bool) {
	var v []string
	if _, inside := tree.Current(); !inside || json.Unmarshal([]byte(os.Getenv(envChoice)), &v) != nil || len(v) != 3 {
		return choice{}, false
	}
	return choice{kind: v[0], why: v[1], vpp: v[2]}, true
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
	if c, ok := inherited(); ok {
		return c, nil
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
		return choice{kind: config.DataplaneLinux, why: fmt.Sprintf("the kernel's SRv6, because no usable VPP was found (%s)", firstLine(err))}, nil
	}
	return choice{}, fmt.Errorf("dataplane %s: %w; install VPP 25.10 (FD.io's packages), or set "+find.Env+" to its vpp program", want, err)
}

// firstLine of an error: VPP's last words can be many.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return strings.TrimRight(line, ":; ")
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

// findVPP tries the VPP that would be used: the one named, that of
// SIDEWINDER_VPP, or the one on PATH.
func findVPP(ctx context.Context, given string) (path, what string, err error) {
	if os.Geteuid() != 0 {
		// It could not be tried, nor used.
		v, err := find.Locate(given)
		return v.Path, v.Path, err
	}
	v, err := find.Find(ctx, given, binapi.GroupAFPacket, binapi.GroupAFXDP)
	if err != nil {
		return "", "", err
	}
	return v.Path, fmt.Sprintf("VPP %s (%s, from %s)", v.Version, v.Path, v.From), nil
}

// vppctlFor is the vppctl that belongs to a vpp program.
func vppctlFor(vpp string) string {
	beside := filepath.Join(filepath.Dir(vpp), "vppctl")
	if _, err := os.Stat(beside); err == nil {
		return beside
	}
	return "vppctl"
}
