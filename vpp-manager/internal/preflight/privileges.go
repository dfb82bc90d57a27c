package preflight

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/version"
)

// capability names, for those that are asked for.
var capability = []struct {
	bit  int
	name string
	// why it is needed, by the driver.
	why map[Driver]string
}{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", map[Driver]string{AFXDP: "attach XDP", AFPacket: "promiscuous mode", DPDK: "rename links"}},
	{unix.CAP_NET_RAW, "CAP_NET_RAW", map[Driver]string{AFXDP: "AF_XDP sockets", AFPacket: "packet sockets"}},
	{unix.CAP_BPF, "CAP_BPF", map[Driver]string{AFXDP: "load XDP"}},
	{unix.CAP_PERFMON, "CAP_PERFMON", map[Driver]string{AFXDP: "load XDP"}},
	{unix.CAP_SYS_RAWIO, "CAP_SYS_RAWIO", map[Driver]string{DPDK: "drive a NIC"}},
	{unix.CAP_IPC_LOCK, "CAP_IPC_LOCK", map[Driver]string{DPDK: "lock memory"}},
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", map[Driver]string{DPDK: "read physical addresses"}},
}

// has reports whether this process has a capability (capabilities(7)).
func (in input) has(bit int) bool {
	mask, _ := strconv.ParseUint(in.field("proc/self/status", "CapEff"), 16, 64)
	return mask>>bit&1 == 1
}

func privileges(in input) Finding {
	if in.field("proc/self/status", "CapEff") == "" {
		return skipped("/proc/self/status does not tell the capabilities")
	}
	var missing []string
	for _, c := range capability {
		var why []string
		for _, d := range []Driver{AFXDP, AFPacket, DPDK} {
			if w := c.why[d]; w != "" && in.uses(d) {
				why = append(why, w)
			}
		}
		// What CAP_BPF and CAP_PERFMON allow, CAP_SYS_ADMIN does too.
		covered := (c.bit == unix.CAP_BPF || c.bit == unix.CAP_PERFMON) && in.has(unix.CAP_SYS_ADMIN)
		if why != nil && !in.has(c.bit) && !covered {
			missing = append(missing, c.name+" ("+strings.Join(why, ", ")+")")
		}
	}
	if missing != nil {
		return failure("run as root, in a container with these capabilities (privileged has them all)", "missing: %s", strings.Join(missing, ", "))
	}
	if ids := strings.Fields(in.text("proc/self/uid_map")); len(ids) == 3 && ids[2] != "4294967295" {
		return warning("run outside of user namespaces; the checks below tell what the kernel refuses here",
			"all, but in a user namespace, where the kernel refuses much of it")
	}
	return ok("all that the drivers need")
}

// memlock is about AF_XDP's packet memory, all of VPP's buffers once for each
// queue, which counts as locked memory of whoever lacks CAP_IPC_LOCK (the
// kernel's xdp_umem_account_pages); and for kernels before 5.11 about BPF maps,
// which count for everybody.
func memlock(in input) Finding {
	soft, hard, err := in.Rlimit(unix.RLIMIT_MEMLOCK)
	if err != nil {
		return skipped("the limit cannot be read: %v", err)
	}
	const fix = "give CAP_IPC_LOCK and CAP_SYS_RESOURCE, or the limit: LimitMEMLOCK=infinity in the systemd unit of the container runtime or of vpp-manager"
	old := false
	if got, err := version.ParseGeneric(leadingNumbers.FindString(in.text("proc/sys/kernel/osrelease"))); err == nil {
		old = got.LessThan(version.MustParseGeneric("5.11"))
	}
	switch {
	case soft == unix.RLIM_INFINITY:
		return ok("unlimited")
	case in.has(unix.CAP_SYS_RESOURCE):
		return ok("%s, which is raised for VPP (CAP_SYS_RESOURCE)", bytesText(soft))
	case hard == unix.RLIM_INFINITY:
		return ok("%s, which is raised for VPP to its hard limit, unlimited", bytesText(soft))
	case in.has(unix.CAP_IPC_LOCK) && !old:
		return ok("%s, which does not bind a process with CAP_IPC_LOCK", bytesText(soft))
	case old:
		return failure(fix, "at most %s, which on a kernel before 5.11 also bounds the shim's maps", bytesText(hard))
	}
	return failure(fix, "at most %s, and VPP's buffers are %s", bytesText(hard), bytesText(uint64(in.Buffers)*in.bufferBytes()))
}
