// The sidewinder agent: one process on each node, from cluster state to
// dataplane state.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sidewinder-net/sidewinder/agent/cniserver"
	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/agent/controller"
	"github.com/sidewinder-net/sidewinder/agent/source/file"
	"github.com/sidewinder-net/sidewinder/agent/underlay"
)

func main() {
	var path string
	cmd := &cobra.Command{
		Use:           "sidewinder-agent",
		Short:         "Programs this node's dataplane from the cluster's state",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			return run(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "configuration file (YAML); without it the defaults hold")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := cmd.ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sidewinder-agent:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg config.Config) error {
	log := logrus.New()
	level, err := logrus.ParseLevel(cfg.LogLevel)
	if err != nil {
		return err
	}
	log.SetLevel(level)
	log.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, TimestampFormat: "2006-01-02T15:04:05.000Z07:00"})

	kernel := underlay.New(underlay.Options{
		Uplinks: cfg.Uplinks, Neighbours: cfg.Dataplane == config.DataplaneVPP, Log: log.WithField("component", "underlay"),
	})
	src := file.New(file.Config{Dir: cfg.SourceDir, NodeName: cfg.NodeName, Block: cfg.BlockPrefix}, log.WithField("component", "source"))
	g, ctx := errgroup.WithContext(ctx)
	ctl := controller.New(controller.Options{
		Config: cfg, Source: src, Underlay: kernel, Log: log.WithField("component", "controller"),
		Connect: func(ctx context.Context, uplinks []string) (controller.Dataplane, error) {
			return connect(ctx, g, cfg, uplinks, log)
		},
	})
	srv, err := cniserver.New(cniserver.Options{
		Socket: cfg.Socket, StateDir: cfg.StateDir,
		Config: ctl.NodeConfig, Ready: ctl.Ready, Await: ctl.Await, Status: ctl.Status, Resync: ctl.Resync,
		Log: log.WithField("component", "cni"),
	})
	if err != nil {
		return err
	}
	g.Go(func() error { return kernel.Run(ctx) })
	g.Go(func() error { return src.Run(ctx) })
	g.Go(func() error { return srv.Run(ctx) })
	g.Go(func() error { return ctl.Run(ctx, srv) })
	log.WithField("node", cfg.NodeName).Info("started")
	return g.Wait()
}
