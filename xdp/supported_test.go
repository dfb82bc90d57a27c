package xdp

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
)

// Root of a user namespace of its own may not load BPF programs.
func TestSupportedSaysWhatIsMissing(t *testing.T) {
	if os.Getenv("XDP_NO_RIGHTS") != "" {
		err := Supported()
		require.ErrorIs(t, err, ErrUnsupported)
		var u *UnsupportedError
		require.ErrorAs(t, err, &u)
		require.Contains(t, u.Feature, "the right to load BPF programs")
		require.ErrorContains(t, err, "CAP_BPF")
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to make a user namespace without rights")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestSupportedSaysWhatIsMissing$", "-test.v")
	cmd.Env = append(os.Environ(), "XDP_NO_RIGHTS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("the kernel makes no user namespace: %v", err)
	}
	require.NoError(t, err, string(out))
}

// The object has what VPP's plugin asks of it: one program, and this map.
func TestObjectIsAsVPPWantsIt(t *testing.T) {
	spec, err := loadShim()
	require.NoError(t, err)
	require.Len(t, spec.Programs, 1)
	require.Equal(t, ebpf.XDP, spec.Programs[shimProgSidewinderShim].Type)
	require.Less(t, len(shimProgSidewinderShim), 16, "the kernel cuts longer names off")
	require.Equal(t, ebpf.XSKMap, spec.Maps["xsks_map"].Type)
	require.Empty(t, spec.Variables, "a global variable is one more map")
	require.Len(t, spec.Maps, 6)
}
