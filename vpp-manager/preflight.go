package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/preflight"
)

func preflightCommand() *cobra.Command {
	o := preflight.DefaultOptions()
	driver, podDriver, output, strict := string(o.Driver), string(o.PodDriver), "table", false
	cmd := &cobra.Command{
		Use:   "preflight",
		Short: "Check whether this machine is ready for VPP, and say what to fix",
		Long: `Makes a list of checks and prints a table: verdict (ok, warning, failure,
skipped), what was found, and how to fix it. What the kernel can do is tried, in
a network namespace that lasts as long as this takes; VPP is started for a
moment in a folder of its own. Nothing on the machine is changed.

The exit status is 0 when nothing fails, and 1 otherwise; with --strict also for
warnings. Run it as the user, and in the container, that vpp-manager will be.

docs/preflight.md has a section for each check.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Driver, o.PodDriver = preflight.Driver(driver), preflight.Driver(podDriver)
			if err := o.Validate(); err != nil {
				return err
			}
			if output != "table" && output != "json" {
				return fmt.Errorf("--output: %q is not \"table\" or \"json\"", output)
			}
			r := preflight.Run(cmd.Context(), preflight.ThisMachine(), o)
			write := r.WriteTable
			if output == "json" {
				write = r.WriteJSON
			}
			if err := write(cmd.OutOrStdout()); err != nil {
				return err
			}
			return r.Outcome(strict)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.VPP, "vpp", "", "VPP's executable (default: $"+find.Env+", else vpp on PATH)")
	f.StringVar(&o.RunDir, "run-dir", o.RunDir, "folder for sockets, log and configuration")
	f.StringArrayVar(&o.Uplinks, "uplink", nil, "interface that faces the underlay, or NAME=dpdk[:DEVICE] for one that VPP drives itself, as given to run; repeatable (default: those of the default IPv6 route)")
	f.BoolVar(&o.NoIOMMU, "uplink-no-iommu", false, "as given to run: a NIC may be given to VPP without an IOMMU")
	f.StringVar(&driver, "driver", driver, "of the uplinks that name none: af_xdp, af_packet or dpdk")
	f.StringVar(&podDriver, "pod-driver", podDriver, "of the pods: af_xdp or af_packet")
	f.IntVar(&o.MaxPods, "max-pods", o.MaxPods, "pods that VPP is to hold")
	f.IntVar(&o.PodMTU, "pod-mtu", 0, "MTU of pods, as in the agent's configuration; 0: the uplink's less the encapsulation")
	f.IntVar(&o.Workers, "workers", 0, "threads beside the main one, as given to run")
	f.IntVar(&o.MainCore, "main-core", o.MainCore, "CPU of the main thread, as given to run (default: chosen when there are workers)")
	f.StringVar(&o.WorkerCores, "worker-cores", "", "CPUs of the workers, such as 2-3, as given to run (default: chosen)")
	f.StringVar(&o.MainHeap, "main-heap", o.MainHeap, "size of VPP's heap, as given to run")
	f.IntVar(&o.Buffers, "buffers", o.Buffers, "packet buffers for each NUMA node, as given to run; 0: as run computes them")
	f.IntVar(&o.Ring, "ring", 0, "size of the AF_XDP rings of uplinks, as given to run; 0: VPP's default")
	f.IntVar(&o.BufferData, "buffer-data", o.BufferData, "bytes of a packet buffer, when run's --extra sets buffers { default data-size }")
	f.StringVar(&output, "output", output, "table or json")
	f.BoolVar(&strict, "strict", false, "warnings count as failures")
	return cmd
}

// preflight makes the checks that take no time before VPP is started: what would
// fail is said in words. The drivers of shared uplinks and of pods are the
// agent's to choose, so that what only some of them need is left out.
func (o runOptions) preflight(ctx context.Context) error {
	p := preflight.DefaultOptions()
	p.Driver, p.PodDriver = "", ""
	p.VPP, p.RunDir, p.Uplinks, p.NoIOMMU = o.vpp, o.runDir, o.uplinks, o.dedicated.NoIOMMU
	p.Workers, p.MainCore, p.WorkerCores = o.workers, o.mainCore, o.workerCores
	p.MainHeap, p.Buffers, p.Ring, p.MaxPods = o.heap, o.buffers, o.ring, o.maxPods
	return preflight.Quick(ctx, p)
}
