package supervise

import (
	"golang.org/x/sys/unix"
)

// unpin lets a VPP without workers run on every CPU that this process may use.
// VPP binds its main thread to the second CPU, where all VPPs of a machine
// would then sit. Failing is no harm: it runs, on that CPU.
func unpin(pid int) error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return err
	}
	return unix.SchedSetaffinity(pid, &set)
}
