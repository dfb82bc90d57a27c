// Command vpp-manager starts VPP on a node and keeps it running.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	log := logrus.New()
	log.SetOutput(os.Stderr)
	root := &cobra.Command{
		Use:           "vpp-manager",
		Short:         "Starts FD.io VPP for Sidewinder and keeps it running",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(log), restartCommand(), statusCommand(), findCommand(), preflightCommand(), restoreCommand(log))
	err := root.ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vpp-manager:", err)
		os.Exit(1)
	}
}
