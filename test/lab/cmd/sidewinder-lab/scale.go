package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/test/lab"
	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
)

// scale is what many pods on one node take, in the report.
type scale struct {
	Pods int `json:"pods"`
	// AddMillis is the mean time of a CNI ADD, MaxAddMillis the longest.
	AddMillis    ms `json:"addMillis"`
	MaxAddMillis ms `json:"maxAddMillis"`
	// Before the pods, idle, and with them, idle.
	Before lab.Usage `json:"before"`
	With   lab.Usage `json:"with"`
}

// kubeletPods is how many pods a kubelet allows on a node by default.
const kubeletPods = 110

// idleTime is how long an idle node is looked at.
const idleTime = 10 * time.Second

func scaleCommand() *cobra.Command {
	f := demoFlags{}
	pods := kubeletPods
	cmd := &cobra.Command{
		Use:   "scale",
		Short: "Put many pods on one node and tell what they take: memory and idle CPU",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if pods < lab.MinPods || pods > lab.MaxPods {
				return fmt.Errorf("pods-on-node: %d is not between %d and %d", pods, lab.MinPods, lab.MaxPods)
			}
			f.only = func(d *demo) []part { return []part{{"scale", d.scale(pods)}} }
			return f.run(cmd.Context())
		},
	}
	f.common(cmd)
	f.nodes, f.pods = 2, 1
	cmd.Flags().Lookup("nodes").DefValue, cmd.Flags().Lookup("pods").DefValue = "2", "1"
	cmd.Flags().Var(wholeNumber{"pods-on-node", &pods}, "pods-on-node", fmt.Sprintf("pods on the first node in the end, up to %d", lab.MaxPods))
	cmd.Flags().StringVar(&f.report, "report", "", "write the outcome to this file as JSON")
	return cmd
}

// scale fills the first node with pods, and looks at it before and after.
func (d *demo) scale(pods int) func(context.Context) error {
	return func(ctx context.Context) error {
		n, other := d.lab.Nodes()[0], d.lab.Nodes()[1]
		r := scale{Pods: pods}
		err := d.screen.step("scale idle", "idle with "+fmt.Sprint(len(n.Pods()))+" pod", func(noter) error {
			var err error
			r.Before, err = n.Usage(idleTime)
			return err
		})
		if err != nil {
			return err
		}
		err = d.screen.step("scale add", fmt.Sprintf("%d pods on %s", pods, n.Name), func(note noter) error {
			var all time.Duration
			added := 0
			for len(n.Pods()) < pods {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				begin := time.Now()
				if _, err := n.AddPod(ctx); err != nil {
					return err
				}
				took := time.Since(begin)
				all, added = all+took, added+1
				r.MaxAddMillis = max(r.MaxAddMillis, millis(took))
				note("%d, %s each", len(n.Pods()), (all / time.Duration(added)).Round(time.Millisecond))
			}
			r.AddMillis = millis(all) / ms(max(added, 1))
			return d.lab.WaitConverged(ctx)
		})
		if err != nil {
			return err
		}
		err = d.screen.step("scale reach", "the first, the middle and the last are reached", func(note noter) error {
			all := n.Pods()
			peers := []traffic.Peer{other.Pods()[0].Peer(), all[0].Peer(), all[len(all)/2].Peer(), all[len(all)-1].Peer()}
			m, err := traffic.Reach(ctx, peers, traffic.Checks(), nil)
			note("%d of %d probes", m.OK, m.Tried)
			for _, f := range m.Failures {
				err = errors.Join(err, errors.New(f.String()))
			}
			d.report.Reachability = reachability{Tried: m.Tried, OK: m.OK}
			return err
		})
		if err != nil {
			return err
		}
		err = d.screen.step("scale full", fmt.Sprintf("idle with %d pods", pods), func(noter) error {
			if s, err := n.Status(ctx); err != nil {
				return err
			} else if n.RunsVPP() && s.Dataplane.Active != config.DataplaneVPP {
				return fmt.Errorf("%s: VPP does not carry the traffic: %s", n.Name, s.Dataplane.Reason)
			}
			var err error
			r.With, err = n.Usage(idleTime)
			return err
		})
		d.report.Scale = &r
		d.screen.printf("\n%s", indent(scaleTable(r)))
		return err
	}
}

// scaleTable shows what the programs take.
func scaleTable(r scale) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "PROGRAM\tMEMORY BEFORE\tWITH %d PODS\tEACH POD\tIDLE CPU BEFORE\tWITH %d PODS\n", r.Pods, r.Pods)
	for _, name := range slices.Sorted(maps.Keys(r.With)) {
		before, with := r.Before[name], r.With[name]
		each := float64(with.Resident-before.Resident) / float64(max(r.Pods-1, 1)) / 1024
		fmt.Fprintf(w, "%s\t%.1f MB\t%.1f MB\t%.0f KB\t%.1f%%\t%.1f%%\n", name,
			megabytes(before.Resident), megabytes(with.Resident), each, 100*before.CPU, 100*with.CPU)
	}
	w.Flush()
	return b.String()
}

func megabytes(n int) float64 { return float64(n) / (1 << 20) }
