// Command sidewinder-lab runs a cluster of network namespaces on one machine:
// `demo` builds one, shows what it does and checks it; `exec`, `list` and `down`
// deal with labs that run.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidewinder-net/sidewinder/test/lab/tree"
)

func main() {
	tree.Dispatch()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := command().ExecuteContext(ctx)
	stop()
	var exit *tree.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		// A worker that ended by itself has said why.
		if exit.Code > 128 && exit.Code != tree.ExitInterrupted {
			fmt.Fprintln(os.Stderr, "sidewinder-lab:", err)
		}
		os.Exit(exit.Code)
	default:
		fmt.Fprintln(os.Stderr, "sidewinder-lab:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "sidewinder-lab",
		Short:         "A Sidewinder cluster of network namespaces on one machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	root.AddCommand(demoCommand(), upCommand(), failoverCommand(), scaleCommand(), execCommand(), listCommand(), downCommand())
	return root
}

func execCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "exec LAB PLACE -- COMMAND [ARGUMENT...]",
		Short: "Run a command at a place in a running lab",
		Long: "Run a command at a place in a running lab: a node (node1), a pod (node1-pod1) or a\n" +
			"router (tor1, spine1). It sees that place's interfaces and routes, and the lab's /run.",
		Example: "  sidewinder-lab exec 1234 node1 -- ip -6 route",
		Args:    cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			code, err := tree.Exec(cmd.Context(), args[0], args[1], args[2:])
			if err != nil {
				return err
			}
			if code != 0 {
				return &tree.ExitError{Code: code}
			}
			return nil
		},
	}
}

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List this user's labs, and the logs that failed ones left",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			labs, err := tree.List()
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "LAB\tSTATE\tSINCE\tWHAT\tFILES")
			for _, l := range labs {
				state := "running"
				switch {
				case l.Running:
				case l.Kept:
					state = "failed, logs kept"
				default:
					state = "died"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.ID, state, l.Started.Format(time.DateTime), l.Description, l.Dir)
			}
			return w.Flush()
		},
	}
}

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down LAB...",
		Short: "End labs, or remove the logs that failed ones left",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var errs []error
			for _, id := range args {
				errs = append(errs, tree.Down(id, 30*time.Second))
			}
			return errors.Join(errs...)
		},
	}
}
