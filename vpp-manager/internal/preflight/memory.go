package preflight

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

// memory compares what VPP takes with what is available. Program, plugins and
// statistics take about 150 MiB; heap and buffers come on top, unless they are
// in huge pages, which are no longer available to others anyway.
func memory(in input) Finding {
	const base = 150 << 20
	h := startup.ReadHugePages(in.Root)
	need := uint64(base)
	if page := in.pageSize(); page == smallPage {
		need += in.heapBytes() + uint64(len(h.Nodes))*in.poolBytes(page)
	}
	kib, err := strconv.ParseUint(strings.TrimSuffix(in.field("proc/meminfo", "MemAvailable"), " kB"), 10, 64)
	if err != nil {
		return skipped("/proc/meminfo does not tell what is available")
	}
	free, where := kib<<10, "available"
	if limit, used, found := in.cgroupMemory(); found && limit-min(limit, used) < free {
		free, where = limit-min(limit, used), "left in this control group"
	}
	text := fmt.Sprintf("%s %s, VPP takes up to %s%s", bytesText(free), where, bytesText(need), in.runsAlready())
	if free < need {
		return warning("free some memory or raise the container's limit; or less for VPP: --main-heap, --buffers", "%s", text)
	}
	return ok("%s", text)
}

// cgroupMemory is this process's memory limit (control groups, version 2) and
// what of it is used.
func (in input) cgroupMemory() (limit, used uint64, found bool) {
	for line := range strings.Lines(in.text("proc/self/cgroup")) {
		path, v2 := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !v2 {
			continue
		}
		limit, err1 := strconv.ParseUint(in.text("sys/fs/cgroup"+path+"/memory.max"), 10, 64)
		used, err2 := strconv.ParseUint(in.text("sys/fs/cgroup"+path+"/memory.current"), 10, 64)
		return limit, used, err1 == nil && err2 == nil
	}
	return 0, 0, false
}

// VPP maps a region of 64 MiB (global_vm) and the API's (vpe-api, 16 MiB) from
// /dev/shm, and begins with some 100 KiB of both. It dies of SIGBUS when it
// comes to the end of a smaller file system.
const (
	sharedBytes = (64 + 16) << 20
	sharedFirst = 1 << 20
)

func sharedMemory(in input) Finding {
	const fix = "mount a tmpfs of 128 MiB or more at /dev/shm (in a pod: an emptyDir with medium Memory; docker: --shm-size)"
	total, free, readOnly, err := in.Space(in.path("dev/shm"))
	switch {
	case err != nil:
		return failure(fix, "/dev/shm: %v", err)
	case readOnly:
		return failure(fix, "/dev/shm is mounted read-only")
	case free < sharedFirst:
		return failure(fix, "%s free of %s", bytesText(free), bytesText(total))
	case free < sharedBytes:
		return warning(fix, "%s free of %s; VPP maps %s and would die when it comes to use them all", bytesText(free), bytesText(total), bytesText(sharedBytes))
	}
	return ok("%s free", bytesText(free))
}

// Descriptors: measured with VPP 25.10, 13 for VPP itself and 8 for each af_xdp
// interface with one queue. What people and tools open is beside that.
const (
	descriptorsBase = 64
	descriptorsEach = 8
)

func fileDescriptors(in input) Finding {
	_, hard, err := in.Rlimit(unix.RLIMIT_NOFILE)
	if err != nil {
		return skipped("the limit cannot be read: %v", err)
	}
	need := uint64(descriptorsBase + descriptorsEach*(in.MaxPods+len(in.Uplinks)+1) + 4*in.Workers)
	if in.has(unix.CAP_SYS_RESOURCE) {
		return ok("as many as are needed: vpp-manager may raise the limit (CAP_SYS_RESOURCE)")
	}
	if hard < need {
		return failure(fmt.Sprintf("LimitNOFILE=%d in the unit of the container runtime or of vpp-manager", max(65536, need)), "at most %d, VPP with %d pods takes up to %d", hard, in.MaxPods, need)
	}
	return ok("at most %d, VPP with %d pods takes up to %d", hard, in.MaxPods, need)
}
