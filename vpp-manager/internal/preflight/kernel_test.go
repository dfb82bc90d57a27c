package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/xdp"
)

// TestJudgeKernel: releases are compared as numbers. As texts, 6.1 and 5.15 come
// before 5.4, and 10.0 before all.
func TestJudgeKernel(t *testing.T) {
	for text, want := range map[string]Verdict{
		"6.1.0-18-amd64":                     OK,
		"6.1":                                OK,
		"6.12.9-200.fc41.x86_64":             OK,
		"6.10.0":                             OK,
		"10.0.1":                             OK,
		"6.0.19":                             Warning,
		"5.15.0-91-generic":                  Warning,
		"5.15.167.4-microsoft-standard-WSL2": Warning,
		"5.11.0":                             Warning,
		"5.10.226":                           Failure,
		"5.4.0-200-generic":                  Failure,
		"4.18.0-553.el8_10.x86_64":           Failure,
		"":                                   Warning,
		"next-20260101":                      Warning,
	} {
		require.Equal(t, want, judgeKernel(text, true).Verdict, text)
	}
	require.Equal(t, Warning, judgeKernel("5.4.0", false).Verdict, "af_packet does without the shim")
	f := judgeKernel("5.15.0-91-generic", true)
	require.Contains(t, f.Found, "5.16")
	require.Contains(t, f.Found, "H.Encaps.Red")
	require.NotContains(t, f.Found, "(5.11)")
}

func TestKernelFiles(t *testing.T) {
	o := goodOptions()
	expect(t, "kernel-version", goodMachine(t, nil), o, OK, "6.12.9-200.fc41.x86_64")
	expect(t, "btf", goodMachine(t, map[string]string{"sys/kernel/btf/vmlinux": "gone"}), o, OK, "the shim does not need it")
	expect(t, "bpffs", goodMachine(t, nil), o, OK, "mounted at /sys/fs/bpf; not needed")
	expect(t, "bpffs", goodMachine(t, map[string]string{"proc/mounts": "proc /proc proc rw 0 0\n"}), o, OK, "not mounted; not needed")
	expect(t, "flow-label", goodMachine(t, map[string]string{"proc/sys/net/ipv6/seg6_flowlabel": "gone"}), o, Warning, "one flow label")
}

func TestGuard(t *testing.T) {
	const lost = "some tens are lost instead of 0 to 2"
	refuses := func(err error) Machine {
		m := goodMachine(t, nil)
		m.Guard = func() error { return err }
		return m
	}
	o := goodOptions()
	expect(t, "guard", goodMachine(t, nil), o, OK, "all three")
	expect(t, "guard", refuses(fmt.Errorf("guard: %w: %w", xdp.ErrUnsupported, unix.EPERM)), o, Warning, "CAP_BPF and CAP_PERFMON")
	expect(t, "guard", refuses(fmt.Errorf("guard: %w: %w", xdp.ErrUnsupported, unix.EINVAL)), o, Warning, "CONFIG_BPF_EVENTS")
	expect(t, "guard", refuses(errTest), o, Warning, lost)
	expect(t, "guard", refuses(unix.EPERM), o, Warning, lost)
	expect(t, "guard", goodMachine(t, map[string]string{"proc/self/ns/pid": "-> pid:[4026532001]"}), o, Warning, "hostPID: true")
	expect(t, "guard", goodMachine(t, map[string]string{"sys/kernel/btf/vmlinux": "gone"}), o, Warning, "CONFIG_DEBUG_INFO_BTF")
	o.Driver, o.PodDriver = AFPacket, AFPacket
	expect(t, "guard", refuses(errTest), o, Skipped, "only for af_xdp")
}

func TestJudgeFeature(t *testing.T) {
	require.Equal(t, Skipped, Features{NotTried: unix.EPERM}.judge(FeatureXDP).Verdict)
	for name := range lacks() {
		require.Equal(t, OK, Features{}.judge(name).Verdict, "%s", name)
		f := Features{Errors: map[Feature]error{name: unix.EOPNOTSUPP}}.judge(name)
		require.Equal(t, lacks()[name].verdict, f.Verdict, "%s", name)
		require.Contains(t, f.Found, "operation not supported")
		require.Contains(t, f.Fix, "CONFIG_")
	}
	f := Features{Errors: map[Feature]error{FeatureVeth: fmt.Errorf("making: %w", os.ErrPermission)}}.judge(FeatureVeth)
	require.Contains(t, f.Fix, "privileges")
	shim := &xdp.UnsupportedError{Feature: "the map type LPMTrie", Remedy: "a newer kernel", Err: errors.New("invalid argument")}
	f = Features{Errors: map[Feature]error{FeatureShim: shim}}.judge(FeatureShim)
	require.Equal(t, "a newer kernel", f.Fix)
	require.Contains(t, f.Found, "the map type LPMTrie: invalid argument")
}

func TestEveryFeatureHasACheck(t *testing.T) {
	m := goodMachine(t, nil)
	for name := range lacks() {
		m.Try = func(context.Context) Features { return Features{Errors: map[Feature]error{name: errTest}} }
		o := goodOptions()
		o.PodDriver = AFPacket
		found := 0
		for _, res := range Run(t.Context(), m, o).Results {
			if res.Verdict == lacks()[name].verdict && res.Found != "" && strings.Contains(res.Found, errTest.Error()) {
				found++
			}
		}
		require.Equal(t, 1, found, "%s", name)
	}
}

func TestPrivileges(t *testing.T) {
	status := func(mask uint64) map[string]string {
		return map[string]string{"proc/self/status": fmt.Sprintf("CapEff:\t%016x\nCpus_allowed_list:\t0-7\n", mask)}
	}
	bits := func(caps ...int) (mask uint64) {
		for _, c := range caps {
			mask |= 1 << c
		}
		return mask
	}
	o := goodOptions()
	expect(t, "privileges", goodMachine(t, nil), o, OK, "all that")
	expect(t, "privileges", goodMachine(t, status(0)), o, Failure, "CAP_NET_ADMIN (attach XDP)")
	expect(t, "privileges", goodMachine(t, status(bits(unix.CAP_NET_ADMIN, unix.CAP_NET_RAW))), o, Failure, "missing: CAP_BPF (load XDP), CAP_PERFMON")
	expect(t, "privileges", goodMachine(t, status(bits(unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_BPF, unix.CAP_PERFMON))), o, OK, "")
	expect(t, "privileges", goodMachine(t, status(bits(unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN))), o, OK, "")
	expect(t, "privileges", goodMachine(t, map[string]string{"proc/self/uid_map": "0 1000 1\n"}), o, Warning, "user namespace")
	o.Driver, o.PodDriver = AFPacket, AFPacket
	expect(t, "privileges", goodMachine(t, status(bits(unix.CAP_NET_ADMIN, unix.CAP_NET_RAW))), o, OK, "")
}

func TestMemlock(t *testing.T) {
	limit := func(m Machine, soft, hard uint64) Machine {
		m.Rlimit = func(which int) (uint64, uint64, error) {
			require.Equal(t, unix.RLIMIT_MEMLOCK, which)
			return soft, hard, nil
		}
		return m
	}
	none := map[string]string{"proc/self/status": "CapEff:\t0000000000000000\n"}
	lock := map[string]string{"proc/self/status": fmt.Sprintf("CapEff:\t%016x\n", 1<<unix.CAP_IPC_LOCK)}
	old := map[string]string{"proc/self/status": lock["proc/self/status"], "proc/sys/kernel/osrelease": "5.4.0"}
	o := goodOptions()
	expect(t, "memlock", goodMachine(t, nil), o, OK, "unlimited")
	expect(t, "memlock", limit(goodMachine(t, nil), 1<<16, 1<<16), o, OK, "CAP_SYS_RESOURCE")
	expect(t, "memlock", limit(goodMachine(t, none), 1<<16, unix.RLIM_INFINITY), o, OK, "hard limit")
	expect(t, "memlock", limit(goodMachine(t, lock), 1<<16, 1<<16), o, OK, "64 KiB, which does not bind")
	expect(t, "memlock", limit(goodMachine(t, none), 1<<16, 1<<16), o, Failure, "at most 64 KiB, and VPP's buffers are")
	expect(t, "memlock", limit(goodMachine(t, old), 1<<16, 1<<16), o, Failure, "before 5.11")
	o.Driver, o.PodDriver = AFPacket, AFPacket
	expect(t, "memlock", limit(goodMachine(t, none), 1, 1), o, Skipped, "only for")
}
