package preflight

import (
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// Kernel releases.
const (
	// shimKernel runs the XDP shim (bpf_ktime_get_coarse_ns is of 5.11), and has
	// AF_XDP as VPP uses it (unaligned chunks and need_wakeup are of 5.4).
	shimKernel = "5.11"
	// fullKernel has all that the kernel's half of Sidewinder uses.
	fullKernel = "6.1"
)

// since names what came with a kernel release, newest first: the first one after
// the change went into the kernel's history, 848f3c0d4769 (NEXT-C-SID),
// b07c8cdbe918 (H.Encaps.Red), 7482e3841d52 (NTF_EXT_MANAGED), d05512618056
// (bpf_ktime_get_coarse_ns), 77cd0d7b3f25 (need_wakeup), c05cd3645814 (unaligned
// chunks), ab84be7e54fc (nexthop objects).
var since = []struct{ release, what string }{
	{"6.1", "End with NEXT-C-SID (uN)"},
	{"6.0", "H.Encaps.Red, without which the kernel cannot carry the overlay while VPP is down"},
	{"5.16", "neighbours that the kernel keeps resolved (NTF_EXT_MANAGED)"},
	{"5.11", "what the XDP shim and AF_XDP need"},
	{"5.3", "nexthop objects, which SR policies are kept in"},
}

// leadingNumbers are those of a kernel's release text, such as 6.1.0-18-amd64 or
// 5.15.0+.
var leadingNumbers = regexp.MustCompile(`^\d+(\.\d+)+`)

func kernelVersion(in input) Finding {
	return judgeKernel(in.text("proc/sys/kernel/osrelease"), in.uses(AFXDP))
}

// judgeKernel compares a release text, as numbers, with what is needed.
func judgeKernel(text string, afXDP bool) Finding {
	got, err := version.ParseGeneric(leadingNumbers.FindString(text))
	if err != nil {
		return warning("see the checks of the features themselves", "the release %q has no number", text)
	}
	if afXDP && got.LessThan(version.MustParseGeneric(shimKernel)) {
		return failure("use Linux "+fullKernel+" or later, or --driver af_packet and --pod-driver af_packet",
			"%s is older than %s, which the XDP shim needs", text, shimKernel)
	}
	var missing []string
	for _, s := range since {
		if got.LessThan(version.MustParseGeneric(s.release)) {
			missing = append(missing, s.what+" ("+s.release+")")
		}
	}
	if missing != nil {
		return warning("use Linux "+fullKernel+" or later, unless the distribution carries these back: the checks below try them",
			"%s; later kernels have: %s", text, strings.Join(missing, "; "))
	}
	return ok("%s", text)
}

func btf(in input) Finding {
	if in.exists("sys/kernel/btf/vmlinux") {
		return ok("/sys/kernel/btf/vmlinux is there, for the guard; the shim does not need it")
	}
	return ok("no /sys/kernel/btf/vmlinux; the shim does not need it, and the guard acts later without")
}

func bpffs(in input) Finding {
	for line := range strings.Lines(in.text("proc/mounts")) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "bpf" {
			return ok("mounted at %s; not needed: nothing is pinned", f[1])
		}
	}
	return ok("not mounted; not needed: nothing is pinned")
}

func flowLabel(in input) Finding {
	if in.exists("proc/sys/net/ipv6/seg6_flowlabel") {
		return ok("net.ipv6.seg6_flowlabel is there; the agent sets it")
	}
	return warning("use Linux 4.18 or later with CONFIG_IPV6_SEG6_LWTUNNEL",
		"no net.ipv6.seg6_flowlabel: on the kernel all traffic between two nodes has one flow label, so routers do not spread it")
}
