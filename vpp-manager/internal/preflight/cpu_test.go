package preflight

import "testing"

func TestCPUs(t *testing.T) {
	o := goodOptions()
	expect(t, "cpus", goodMachine(t, nil), o, OK, "8 allowed (0-7), 1 needed")
	o.Workers = 4
	expect(t, "cpus", goodMachine(t, nil), o, OK, "8 allowed (0-7), 5 needed: 1 for the main thread, 4-7 for workers")
	few := map[string]string{"proc/self/status": "CapEff:\t0\nCpus_allowed_list:\t2-3,6\n"}
	expect(t, "cpus", goodMachine(t, few), o, Failure, "this process may use 3 (2-3,6)")
	two := map[string]string{"proc/self/status": "CapEff:\t0\nCpus_allowed_list:\t0-1\n"}
	expect(t, "cpus", goodMachine(t, two), o, Failure, "2 allowed (0-1), 5 needed for the main thread and 4 workers")
	quota := map[string]string{"sys/fs/cgroup/system.slice/vpp.service/cpu.max": "250000 100000\n"}
	expect(t, "cpus", goodMachine(t, quota), o, Warning, "time for 2.5 only")
	unlimited := map[string]string{"sys/fs/cgroup/system.slice/vpp.service/cpu.max": "max 100000\n"}
	expect(t, "cpus", goodMachine(t, unlimited), o, OK, "")
	expect(t, "cpus", goodMachine(t, map[string]string{"proc/self/status": "gone"}), o, Skipped, "")
	o.Workers, o.WorkerCores = 0, "4-5,9"
	expect(t, "cpus", goodMachine(t, nil), o, Failure, "workers on CPU 9")
	o.WorkerCores, o.MainCore = "4-5", 3
	expect(t, "cpus", goodMachine(t, nil), o, OK, "3 for the main thread, 4-5 for workers")
}

func TestIsolatedCPUs(t *testing.T) {
	o := goodOptions()
	expect(t, "isolated-cpus", goodMachine(t, nil), o, Skipped, "--workers")
	o.Workers = 4
	expect(t, "isolated-cpus", goodMachine(t, nil), o, OK, "the workers run on 4-7, of 4-7")
	o.Workers = 5
	expect(t, "isolated-cpus", goodMachine(t, nil), o, Warning, "4-7 are isolated, and the workers run on 2,4-7")
	const isolated = "sys/devices/system/cpu/isolated"
	expect(t, "isolated-cpus", goodMachine(t, map[string]string{isolated: "\n"}), o, Warning, "none")
	expect(t, "isolated-cpus", goodMachine(t, map[string]string{isolated: "12-15\n"}), o, Warning, "12-15 are isolated")
	o.Workers = 20
	expect(t, "isolated-cpus", goodMachine(t, nil), o, Skipped, "no CPUs are chosen")
}

func TestHyperThreads(t *testing.T) {
	o := goodOptions()
	expect(t, "hyper-threads", goodMachine(t, nil), o, Skipped, "--workers")
	o.Workers = 1
	expect(t, "hyper-threads", goodMachine(t, nil), o, OK, "off")
	on := map[string]string{
		"sys/devices/system/cpu/smt/active": "1\n",
		"sys/devices/system/cpu/isolated":   "\n",
		"proc/self/status":                  "CapEff:\t0\nCpus_allowed_list:\t0-1,4-5\n",
	}
	expect(t, "hyper-threads", goodMachine(t, on), o, Skipped, "does not tell")
	for cpu, siblings := range map[string]string{"0": "0,4", "1": "1,5", "4": "0,4", "5": "1,5"} {
		on["sys/devices/system/cpu/cpu"+cpu+"/topology/thread_siblings_list"] = siblings + "\n"
	}
	expect(t, "hyper-threads", goodMachine(t, on), o, OK, "each worker (4) has a core")
	o.Workers = 2
	expect(t, "hyper-threads", goodMachine(t, on), o, Warning, "CPUs 1,5 share a core")
}

func TestClockSource(t *testing.T) {
	const (
		source = "sys/devices/system/clocksource/clocksource0/current_clocksource"
		info   = "proc/cpuinfo"
	)
	o := goodOptions()
	for _, tc := range []struct {
		source, flags string
		want          Verdict
		text          string
	}{
		{"tsc", "flags : constant_tsc nonstop_tsc", OK, "invariant"},
		{"hpet", "flags : constant_tsc nonstop_tsc", Warning, "not to be steady"},
		{"kvm-clock", "flags : constant_tsc nonstop_tsc hypervisor", OK, "kvm-clock"},
		{"kvm-clock", "flags : constant_tsc hypervisor", Warning, "the virtual CPU lacks nonstop_tsc"},
		{"acpi_pm", "flags : tsc", Warning, "the CPU lacks constant_tsc, nonstop_tsc"},
		{"arch_sys_counter", "Features : fp asimd", OK, "arch_sys_counter"},
	} {
		m := goodMachine(t, map[string]string{source: tc.source + "\n", info: tc.flags + "\n"})
		expect(t, "clock-source", m, o, tc.want, tc.text)
	}
}
