package lab

import (
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

// Usage is what a node's programs take, by program: "agent", "vpp-manager",
// "vpp".
type Usage map[string]ProcessUsage

// ProcessUsage is what one process takes.
type ProcessUsage struct {
	// Resident memory in bytes.
	Resident int `json:"residentBytes"`
	// CPU is the share of one processor while it was looked at.
	CPU float64 `json:"cpu"`
}

// Usage looks at a node's programs for a while.
func (n *Node) Usage(during time.Duration) (Usage, error) {
	pids := map[string]int{}
	n.mu.Lock()
	for name, p := range map[string]*process{binAgent: n.agent, binManager: n.manager} {
		if p != nil {
			pids[name] = p.cmd.Process.Pid
		}
	}
	n.mu.Unlock()
	if n.RunsVPP() {
		pid, err := n.VPPProcess()
		if err != nil {
			return nil, err
		}
		pids["vpp"] = pid
	}
	read := func() (map[string]procfs.ProcStat, error) {
		out := map[string]procfs.ProcStat{}
		for name, pid := range pids {
			p, err := procfs.NewProc(pid)
			if err != nil {
				return nil, fmt.Errorf("%s of %s: %w", name, n.Name, err)
			}
			if out[name], err = p.Stat(); err != nil {
				return nil, fmt.Errorf("%s of %s: %w", name, n.Name, err)
			}
		}
		return out, nil
	}
	before, err := read()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	time.Sleep(during)
	after, err := read()
	if err != nil {
		return nil, err
	}
	took := time.Since(begin).Seconds()
	u := Usage{}
	for name, a := range after {
		u[name] = ProcessUsage{Resident: a.ResidentMemory(), CPU: (a.CPUTime() - before[name].CPUTime()) / took}
	}
	return u, nil
}
