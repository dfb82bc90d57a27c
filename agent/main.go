// The sidewinder agent: one process on each node, from cluster state to
// dataplane state.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sidewinder-net/sidewinder/agent/backend/linux"
	"github.com/sidewinder-net/sidewinder/agent/backend/vpp"
	"github.com/sidewinder-net/sidewinder/agent/cniserver"
	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/agent/controller"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/reconcile"
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

// backend is a dataplane with what the wiring needs beside.
type backend interface {
	dataplane.Backend
	Version() string
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
			be, changes, err := open(ctx, cfg, uplinks, log.WithField("component", "dataplane"))
			if err != nil {
				return controller.Dataplane{}, err
			}
			rec := reconcile.New(reconcile.Options{Backend: be, Resync: cfg.ResyncInterval, Log: log.WithField("component", "reconcile")})
			g.Go(func() error { return errors.Join(rec.Run(ctx), be.Close()) })
			g.Go(func() error { return follow(ctx, changes, rec) })
			log.WithFields(logrus.Fields{"dataplane": cfg.Dataplane, "version": be.Version(), "uplinks": uplinks}).Info("connected")
			return controller.Dataplane{Reconciler: rec, Version: be.Version}, nil
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

// follow has the dataplane compared whenever it may have changed by itself.
func follow(ctx context.Context, changes <-chan struct{}, rec *reconcile.Reconciler) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
			rec.Trigger()
		}
	}
}

// open gives the dataplane, and a channel that signals when something in it may
// have changed by itself.
func open(ctx context.Context, cfg config.Config, uplinks []string, log *logrus.Entry) (backend, <-chan struct{}, error) {
	if cfg.Dataplane == config.DataplaneVPP {
		be, err := vpp.New(ctx, vpp.Options{
			Socket: cfg.VPP.Socket, Locator: cfg.BlockPrefix, UplinkDriver: cfg.VPP.UplinkDriver, PodDriver: cfg.VPP.PodDriver, Log: log,
		})
		if err != nil {
			return nil, nil, err
		}
		return be, be.Watch(ctx), nil
	}
	be, err := linux.New(linux.Options{Uplinks: uplinks, Log: log})
	if err != nil {
		return nil, nil, err
	}
	changes, err := be.Watch(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, be.Close())
	}
	return be, changes, nil
}
