package xdp

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
)

// UnsupportedError is an ErrUnsupported with what is missing.
type UnsupportedError struct {
	// Feature in words: "the map type XSKMap".
	Feature string
	// Remedy in words.
	Remedy string
	// Err is the kernel's.
	Err error
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%v: %s: %v: %s", ErrUnsupported, e.Feature, e.Err, e.Remedy)
}

// Is makes it an ErrUnsupported.
func (e *UnsupportedError) Is(target error) bool { return target == ErrUnsupported }

func (e *UnsupportedError) Unwrap() error { return e.Err }

// Supported is nil where the shim can run: it loads it and lets it pass a
// packet, attached to nothing. Else the error is an UnsupportedError.
func Supported() error {
	probeErr := tryShim()
	if probeErr == nil {
		return nil
	}
	if errors.Is(probeErr, os.ErrPermission) {
		return &UnsupportedError{
			Feature: "the right to load BPF programs", Err: probeErr,
			Remedy: "give the process CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN, and let no lockdown or seccomp profile forbid bpf()",
		}
	}
	const newer = "use Linux 5.11 or newer, built with CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS"
	for _, probe := range []struct {
		feature string
		run     func() error
	}{
		{"XDP programs", func() error { return features.HaveProgramType(ebpf.XDP) }},
		{"the map type XSKMap (AF_XDP)", func() error { return features.HaveMapType(ebpf.XSKMap) }},
		{"the map type LPMTrie", func() error { return features.HaveMapType(ebpf.LPMTrie) }},
		{"the map type LRUHash", func() error { return features.HaveMapType(ebpf.LRUHash) }},
		{"the map type ArrayOfMaps", func() error { return features.HaveMapType(ebpf.ArrayOfMaps) }},
		{"the helper bpf_redirect_map", func() error { return features.HaveProgramHelper(ebpf.XDP, asm.FnRedirectMap) }},
		{"the helper bpf_ktime_get_coarse_ns", func() error { return features.HaveProgramHelper(ebpf.XDP, asm.FnKtimeGetCoarseNs) }},
	} {
		if err := probe.run(); err != nil {
			return &UnsupportedError{Feature: probe.feature, Err: err, Remedy: newer}
		}
	}
	return &UnsupportedError{Feature: "loading the shim", Err: probeErr, Remedy: newer}
}

func tryShim() error {
	s := &Shim{linkName: "none"}
	if err := s.load(); err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	t, err := NewTables(TablesOptions{MaxPrefixes: 1, MaxFlows: 1})
	if err != nil {
		return err
	}
	defer func() { _ = t.Close() }()
	if err := s.Bind(RoleUplink, t); err != nil {
		return err
	}
	action, _, err := s.program.Test(make([]byte, 64))
	if err != nil {
		return err
	}
	if action != actionPass {
		return fmt.Errorf("the shim returned %d for an empty frame, want %d (XDP_PASS)", action, actionPass)
	}
	return nil
}

// What an XDP program returns, by enum xdp_action.
const (
	actionPass     = 2
	actionRedirect = 4
)
