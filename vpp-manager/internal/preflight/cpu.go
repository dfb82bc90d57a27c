package preflight

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/utils/cpuset"
)

// allowed are the CPUs that this process, and so VPP, may run on.
func (in input) allowed() (cpuset.CPUSet, error) {
	return cpuset.Parse(in.field("proc/self/status", "Cpus_allowed_list"))
}

func (in input) isolated() cpuset.CPUSet {
	set, err := cpuset.Parse(in.text("sys/devices/system/cpu/isolated"))
	if err != nil {
		return cpuset.New()
	}
	return set
}

// cpus: the main thread takes a CPU of its own as soon as there are workers.
func cpus(in input) Finding {
	set, err := in.allowed()
	if err != nil || set.IsEmpty() {
		return skipped("/proc/self/status does not tell the CPUs that are allowed")
	}
	need := 1 + in.Workers
	if set.Size() < need {
		return failure(fmt.Sprintf("--workers %d or fewer, or allow more CPUs (cpuset of the container)", set.Size()-1),
			"%d allowed (%s), %d needed for the main thread and %s", set.Size(), set, need, count(in.Workers, "worker"))
	}
	if quota, found := in.cpuQuota(); found && quota < float64(need) {
		return warning("raise or remove the container's CPU limit: a thread that polls is stopped for the rest of each period",
			"%d allowed (%s), but time for %.1f only, by the control group's cpu.max", set.Size(), set, quota)
	}
	return ok("%d allowed (%s), %d needed", set.Size(), set, need)
}

// cpuQuota is the CPU limit of this process's control group (version 2), in CPUs.
func (in input) cpuQuota() (float64, bool) {
	for line := range strings.Lines(in.text("proc/self/cgroup")) {
		path, v2 := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !v2 {
			continue
		}
		quota, period, _ := strings.Cut(in.text("sys/fs/cgroup"+path+"/cpu.max"), " ")
		q, err1 := strconv.ParseFloat(quota, 64)
		p, err2 := strconv.ParseFloat(period, 64)
		if err1 == nil && err2 == nil && p > 0 {
			return q / p, true
		}
	}
	return 0, false
}

func isolatedCPUs(in input) Finding {
	if in.Workers == 0 {
		return skipped("only with workers (--workers)")
	}
	set, err := in.allowed()
	if err != nil {
		return skipped("/proc/self/status does not tell the CPUs that are allowed")
	}
	isolated := in.isolated()
	usable := isolated.Intersection(set)
	const fix = "isolcpus=managed_irq,<list> nohz_full=<list> on the kernel's command line, or kubelet's static CPU manager policy"
	switch {
	case isolated.IsEmpty():
		return warning(fix, "none: other programs will interrupt the workers")
	case usable.IsEmpty():
		return warning("allow them to this process (taskset, cpuset of the container)", "%s, none of which this process may use (%s)", isolated, set)
	case usable.Size() < in.Workers:
		return warning(fix, "%s for %s", usable, count(in.Workers, "worker"))
	}
	return ok("%s for %s", usable, count(in.Workers, "worker"))
}

func hyperThreads(in input) Finding {
	if in.Workers == 0 {
		return skipped("only with workers (--workers)")
	}
	set, err := in.allowed()
	if err != nil {
		return skipped("/proc/self/status does not tell the CPUs that are allowed")
	}
	if in.text("sys/devices/system/cpu/smt/active") == "0" {
		return ok("off: each CPU is a core")
	}
	var cores []string
	for _, cpu := range set.List() {
		siblings := in.text(fmt.Sprintf("sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu))
		if siblings == "" {
			return skipped("the kernel does not tell which CPUs share a core")
		}
		cores = append(cores, siblings)
	}
	slices.Sort(cores)
	n := len(slices.Compact(cores))
	if n < 1+in.Workers {
		return warning(fmt.Sprintf("--workers %d, or turn hyper-threads off", max(0, n-1)),
			"%d CPUs are allowed on %d cores: some of %d threads share one, and forward slower than alone", set.Size(), n, 1+in.Workers)
	}
	return ok("%d CPUs are allowed on %d cores", set.Size(), n)
}

// clockSource: VPP reads the time-stamp counter itself, and all its timers, and
// the clocks per packet that it shows, are wrong where that runs at a changing
// pace or stops (Intel SDM volume 3, "Invariant TSC").
func clockSource(in input) Finding {
	source := in.text("sys/devices/system/clocksource/clocksource0/current_clocksource")
	flags := strings.Fields(in.field("proc/cpuinfo", "flags"))
	if len(flags) == 0 { // other architectures have a system counter
		return ok("%s", source)
	}
	var missing []string
	for _, f := range []string{"constant_tsc", "nonstop_tsc"} {
		if !slices.Contains(flags, f) {
			missing = append(missing, f)
		}
	}
	virtual := slices.Contains(flags, "hypervisor")
	switch {
	case missing != nil && virtual:
		return warning("let the hypervisor pass an invariant TSC on (QEMU: -cpu host,migratable=no,+invtsc)",
			"%s; the virtual CPU lacks %s", source, strings.Join(missing, ", "))
	case missing != nil:
		return warning("use a CPU with an invariant TSC", "%s; the CPU lacks %s", source, strings.Join(missing, ", "))
	case source != "tsc" && !virtual:
		return warning("see `dmesg | grep -i tsc`; tsc=reliable on the kernel's command line if the firmware is wrong",
			"%s: the kernel found the TSC not to be steady", source)
	}
	return ok("%s, with an invariant TSC", source)
}
