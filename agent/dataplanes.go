package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/sidewinder-net/sidewinder/agent/backend/linux"
	"github.com/sidewinder-net/sidewinder/agent/backend/vpp"
	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/agent/controller"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/reconcile"
	"github.com/sidewinder-net/sidewinder/agent/switchover"
	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// connect opens the node's dataplanes, and has the group run them: the kernel
// always, VPP beside it where the configuration asks for it.
func connect(ctx context.Context, g *errgroup.Group, cfg config.Config, uplinks []string, log logrus.FieldLogger) (controller.Dataplane, error) {
	kernel, err := linux.New(linux.Options{Uplinks: uplinks, Log: component(log, "kernel")})
	if err != nil {
		return controller.Dataplane{}, err
	}
	changes, err := kernel.Watch(ctx)
	if err != nil {
		return controller.Dataplane{}, errors.Join(err, kernel.Close())
	}
	d := controller.Dataplane{Version: kernel.Version}
	d.Kernel = runBackend(ctx, g, kernel, changes, cfg, component(log, "kernel"), nil)
	if cfg.Dataplane == config.DataplaneVPP {
		if d.VPP, d.Version, err = connectVPP(ctx, g, cfg, log); err != nil {
			return controller.Dataplane{}, err
		}
	} else if err := switchover.RemoveRules(); err != nil {
		return controller.Dataplane{}, err
	} else if err := switchover.RemoveShims(); err != nil {
		// An agent for the kernel alone need not have the right to look.
		log.WithError(err).Warn("links may lead to a VPP of before still: ip link set dev LINK xdp off takes the shim off")
	}
	log.WithFields(logrus.Fields{"dataplane": cfg.Dataplane, "version": d.Version(), "uplinks": uplinks}).Info("connected")
	return d, nil
}

// connectVPP opens VPP, which need not be there yet.
func connectVPP(ctx context.Context, g *errgroup.Group, cfg config.Config, log logrus.FieldLogger) (*controller.VPP, func() string, error) {
	runDir := filepath.Dir(cfg.VPP.Socket)
	carriers, err := newCarriers(cfg, log)
	if err != nil {
		return nil, nil, err
	}
	v := &controller.VPP{}
	var be *vpp.Backend // the two know each other; nothing runs before both are there
	gate := switchover.New(switchover.Options{
		Unmet:      func(generation uint64) (map[dataplane.Key]error, error) { return v.Reconciler.Unmet(generation) },
		Repair:     func() { v.Reconciler.Trigger() },
		Drop:       func() { be.Drop() },
		Manager:    func() (node.Manager, error) { return node.ReadManager(runDir) },
		BeforeOpen: switchover.TolerateGaps,
		Uplinks:    carriers.uplinks, Pods: carriers.pods, Log: component(log, "switchover"),
	})
	be, err = vpp.New(ctx, vpp.Options{
		Socket: cfg.VPP.Socket, Locator: cfg.BlockPrefix, UplinkDriver: cfg.VPP.UplinkDriver, PodDriver: cfg.VPP.PodDriver,
		Shim: filepath.Join(runDir, node.ShimFile), BeforeStall: gate.Pause, Log: component(log, "vpp"),
	})
	if err != nil {
		return nil, nil, err
	}
	v.Gate = gate
	v.Reconciler = runBackend(ctx, g, be, be.Watch(ctx), cfg, component(log, "vpp"), gate.Nudge)
	g.Go(func() error { return gate.Run(ctx) })
	return v, be.Version, nil
}

// carriers by kind of link.
type carriers struct{ uplinks, pods switchover.Carrier }

// newCarriers makes what hands packets to VPP, by driver. A link that VPP has
// for itself needs none.
func newCarriers(cfg config.Config, log logrus.FieldLogger) (carriers, error) {
	var c carriers
	drivers := map[string]bool{cfg.VPP.UplinkDriver: true, cfg.VPP.PodDriver: true}
	byDriver := map[string]switchover.Carrier{}
	if drivers[config.DriverAFXDP] {
		shims, err := switchover.NewShims(xdp.TablesOptions{MaxFlows: uint32(cfg.VPP.KernelFlows)}, component(log, "switchover"))
		if err != nil {
			return c, fmt.Errorf("vpp.uplinkDriver, vpp.podDriver: af_xdp needs the XDP shim: %w; use af_packet on this kernel", err)
		}
		byDriver[config.DriverAFXDP] = shims
	} else if err := switchover.RemoveShims(); err != nil {
		return c, err
	}
	if drivers[config.DriverAFPacket] {
		byDriver[config.DriverAFPacket] = switchover.NewRules(cfg.VPP.UplinkDriver == config.DriverAFPacket, cfg.VPP.PodDriver == config.DriverAFPacket)
	} else if err := switchover.RemoveRules(); err != nil {
		return c, err
	}
	c.uplinks, c.pods = byDriver[cfg.VPP.UplinkDriver], byDriver[cfg.VPP.PodDriver]
	return c, nil
}

// runBackend has the group keep a backend equal to what is desired.
func runBackend(ctx context.Context, g *errgroup.Group, be dataplane.Backend, changes <-chan struct{}, cfg config.Config, log *logrus.Entry, stepped func()) *reconcile.Reconciler {
	rec := reconcile.New(reconcile.Options{Backend: be, Resync: cfg.ResyncInterval, Stepped: stepped, Log: log})
	g.Go(func() error { return errors.Join(rec.Run(ctx), be.Close()) })
	g.Go(func() error { return follow(ctx, changes, rec) })
	return rec
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

func component(log logrus.FieldLogger, name string) *logrus.Entry {
	return log.WithField("component", name)
}
