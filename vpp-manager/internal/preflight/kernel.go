package preflight

import (
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// Kernel releases.
const (
	// oldestKernel can hold VPP's interfaces and the standby's objects at all:
	// AF_XDP with unaligned chunks and need_wakeup, which VPP's plugin always
	// asks for, came with 5.4; nexthop objects with 5.3.
	oldestKernel = "5.4"
	// fullKernel has all that the kernel's half of Sidewinder uses: NEXT-C-SID
	// (6.1), H.Encaps.Red (6.0), managed neighbours (5.16).
	fullKernel = "6.1"
)

// since names what came with a kernel release, newest first.
var since = []struct{ release, what string }{
	{"6.1", "End with NEXT-C-SID (uN)"},
	{"6.0", "H.Encaps.Red: the standby cannot steer without it"},
	{"5.16", "neighbours that the kernel keeps resolved (NTF_EXT_MANAGED)"},
	{"5.11", "BPF memory that does not count as locked"},
	{"5.6", "AF_XDP send and poll at the same time: interrupt mode with workers"},
}

// leadingNumbers are those of a kernel's release text, such as 6.1.0-18-amd64 or
// 5.15.0+.
var leadingNumbers = regexp.MustCompile(`^\d+(\.\d+)+`)

func kernelVersion(in input) Finding {
	return judgeKernel(in.text("proc/sys/kernel/osrelease"))
}

func judgeKernel(text string) Finding {
	got, err := version.ParseGeneric(leadingNumbers.FindString(text))
	if err != nil {
		return warning("see the checks of the features themselves", "the release %q has no number", text)
	}
	if got.LessThan(version.MustParseGeneric(oldestKernel)) {
		return failure("use Linux "+fullKernel+" or later", "%s is older than %s, and has no AF_XDP as VPP uses it", text, oldestKernel)
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
		return ok("/sys/kernel/btf/vmlinux is there; the shim does not need it, tools that look into it do")
	}
	return ok("no /sys/kernel/btf/vmlinux; not needed: the shim has no relocations against the kernel's types")
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
