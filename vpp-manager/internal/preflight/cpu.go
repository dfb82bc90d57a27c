package preflight

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/utils/cpuset"

	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
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

// chosen is where run puts VPP's threads.
func (in input) chosen() (startup.CPU, error) {
	set, err := in.allowed()
	if err != nil {
		return startup.CPU{}, err
	}
	cores, err := startup.ParseCPUs(in.WorkerCores)
	if err != nil {
		return startup.CPU{}, err
	}
	c := startup.CPUs{Allowed: set, Isolated: in.isolated()}
	links, _ := in.uplinks()
	for _, l := range links {
		if near, err := cpuset.Parse(in.text("sys/class/net/" + l.Name + "/device/local_cpulist")); err == nil {
			c.Near = c.Near.Union(near)
		}
	}
	out, _, err := startup.ChooseCPU(c, startup.CPUWish{Workers: in.Workers, Main: in.MainCore, Cores: cores})
	return out, err
}

// cpus: the main thread takes a CPU of its own as soon as there are workers.
func cpus(in input) Finding {
	set, err := in.allowed()
	if err != nil || set.IsEmpty() {
		return skipped("/proc/self/status does not tell the CPUs that are allowed")
	}
	const fix = "fewer --workers, other CPUs, or allow more (cpuset of the container)"
	chosen, err := in.chosen()
	need := 1 + max(in.Workers, chosen.Workers.Size())
	switch {
	case err != nil:
		return failure(fix, "%v", err)
	case set.Size() < need:
		return failure(fix, "%d allowed (%s), %d needed for the main thread and %s", set.Size(), set, need, count(in.Workers, "worker"))
	}
	text := fmt.Sprintf("%d allowed (%s), %d needed", set.Size(), set, need)
	if chosen.Pin {
		text += fmt.Sprintf(": %d for the main thread, %s for workers", chosen.Main, orNothing(chosen.Workers.String()))
	}
	if quota, found := in.cpuQuota(); found && quota < float64(need) {
		return warning("raise or remove the container's CPU limit: a thread that polls is stopped for the rest of each period",
			"%s, but time for %.1f only, by the control group's cpu.max", text, quota)
	}
	return ok("%s", text)
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
	if in.Workers == 0 && in.WorkerCores == "" {
		return skipped("only with workers (--workers)")
	}
	chosen, err := in.chosen()
	if err != nil || !chosen.Pin {
		return skipped("no CPUs are chosen for workers")
	}
	isolated := in.isolated()
	const fix = "isolcpus=managed_irq,<list> nohz_full=<list> on the kernel's command line, or kubelet's static CPU manager policy"
	switch {
	case isolated.IsEmpty():
		return warning(fix, "none: other programs will interrupt the workers")
	case !chosen.Workers.IsSubsetOf(isolated):
		return warning(fix+"; where they are isolated, allow them to this process", "%s are isolated, and the workers run on %s", isolated, chosen.Workers)
	}
	return ok("the workers run on %s, of %s that are isolated", chosen.Workers, isolated)
}

func hyperThreads(in input) Finding {
	if in.Workers == 0 && in.WorkerCores == "" {
		return skipped("only with workers (--workers)")
	}
	chosen, err := in.chosen()
	if err != nil || !chosen.Pin {
		return skipped("no CPUs are chosen for workers")
	}
	if in.text("sys/devices/system/cpu/smt/active") == "0" {
		return ok("off: each CPU is a core")
	}
	threads := chosen.Workers.Union(cpuset.New(chosen.Main))
	for _, cpu := range chosen.Workers.List() {
		siblings, err := cpuset.Parse(in.text(fmt.Sprintf("sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu)))
		if err != nil || siblings.IsEmpty() {
			return skipped("the kernel does not tell which CPUs share a core")
		}
		if both := siblings.Intersection(threads); both.Size() > 1 {
			return warning("--worker-cores with one CPU of each core, fewer --workers, or turn hyper-threads off",
				"CPUs %s share a core, and each has a thread of VPP: together they forward little more than one", both)
		}
	}
	return ok("each worker (%s) has a core without another thread of VPP", chosen.Workers)
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
