// sidewinder-bench programs a whole cluster into dataplanes and prints how long
// it takes: in memory, and into a real VPP beside the raw pipelined binary API
// in the same run.
package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidewinder-net/sidewinder/agent/backend/fake"
	"github.com/sidewinder-net/sidewinder/agent/compile"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/test/bench"
)

func main() {
	o := options{}
	cmd := &cobra.Command{
		Use: "sidewinder-bench", Short: "Time to program a whole cluster", Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	cmd.Flags().IntVar(&o.nodes, "nodes", 2501, "nodes; two policies and two steering entries for each but one")
	cmd.Flags().IntVar(&o.rounds, "rounds", 5, "rounds; the median counts")
	cmd.Flags().StringVar(&o.bin, "bin", "bin", "folder with vpp-manager")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := cmd.ExecuteContext(ctx)
	stop()
	if err != nil {
		os.Exit(1)
	}
}

type options struct {
	nodes, rounds int
	bin           string
}

// series are the times of one measured thing.
type series struct {
	name string
	took []time.Duration
}

func (s *series) time(f func() error) error {
	runtime.GC()
	start := time.Now()
	err := f()
	s.took = append(s.took, time.Since(start))
	return err
}

func (s *series) median() time.Duration {
	t := slices.Sorted(slices.Values(s.took))
	return t[len(t)/2]
}

func (s *series) print() {
	fmt.Printf("  %-44s median %8.1f ms   (min %.1f, max %.1f)\n", s.name,
		ms(s.median()), ms(slices.Min(s.took)), ms(slices.Max(s.took)))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func run(ctx context.Context, o options) error {
	if o.nodes < 2 || o.nodes > 50000 || o.rounds < 1 || o.rounds > 1000 {
		return fmt.Errorf("--nodes %d must be 2 to 50000, and --rounds %d 1 to 1000", o.nodes, o.rounds)
	}
	snap := bench.Cluster(o.nodes, 0, "up0", netip.MustParseAddr("fe80::1"))
	state := compile.Compile(snap, compile.Target{}).State
	fmt.Printf("%d nodes: %d policies, %d steering entries, %d routes\n", o.nodes, len(state.Policies), len(state.Steerings), len(state.Routes))

	full := series{name: "compile and diff against nothing"}
	mem := series{name: "program into memory"}
	for range o.rounds {
		var changes []dataplane.Change
		if err := full.time(func() error {
			changes = dataplane.Diff(compile.Compile(snap, compile.Target{}).State, dataplane.New())
			return nil
		}); err != nil {
			return err
		}
		if err := mem.time(func() error { return fake.New("up0").Apply(ctx, changes) }); err != nil {
			return err
		}
	}
	full.print()
	mem.print()

	manager := filepath.Join(o.bin, "vpp-manager")
	if _, err := os.Stat(manager); err != nil {
		return fmt.Errorf("%w; run make build, or name the folder with --bin", err)
	}
	if out, err := exec.CommandContext(ctx, manager, "find").CombinedOutput(); err != nil {
		fmt.Printf("  VPP: left out: %s", out)
		return nil
	}
	return programVPP(ctx, o, manager, state)
}
