package supervise

import (
	"golang.org/x/sys/unix"
	"k8s.io/utils/cpuset"
)

// unpin lets a VPP without workers run on these CPUs; on none: on every one
// that this process may use. VPP binds its main thread to the CPU that it is
// started on, where several VPPs of a machine may sit. Failing is no harm: it
// runs, on that CPU.
func unpin(pid int, cpus cpuset.CPUSet) error {
	var set unix.CPUSet
	if cpus.IsEmpty() {
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			return err
		}
	}
	for _, cpu := range cpus.UnsortedList() {
		set.Set(cpu)
	}
	return unix.SchedSetaffinity(pid, &set)
}
