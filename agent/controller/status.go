package controller

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/agent/publish"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/agent/switchover"
	cniapi "github.com/sidewinder-net/sidewinder/cni/api"
)

// NodeConfig is what the CNI plugin needs.
func (c *Controller) NodeConfig() (cniapi.NodeConfig, error) {
	if err := c.Ready(); err != nil {
		return cniapi.NodeConfig{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return cniapi.NodeConfig{
		MTU:               c.podMTU(),
		DisableTxChecksum: c.o.Config.Dataplane == config.DataplaneVPP,
	}, nil
}

// podMTU is what fits the smallest uplink after the encapsulation, or less where
// the configuration says so. c.mu is held.
func (c *Controller) podMTU() int {
	mtu := 0
	for _, u := range c.snapshot.Underlay.Uplinks {
		if m := int(u.MTU) - config.EncapOverhead; mtu == 0 || m < mtu {
			mtu = m
		}
	}
	if want := c.o.Config.PodMTU; want != 0 && want < mtu {
		return want
	}
	return mtu
}

// configProblems are settings that cannot be had, or that take something away.
// c.mu is held.
func (c *Controller) configProblems() []status.Problem {
	problems := servicesProblems(c.o.Config)
	want, mtu := c.o.Config.PodMTU, c.podMTU()
	if want <= mtu || mtu == 0 {
		return problems
	}
	return append(problems, status.Problem{
		Object: "configuration", Field: "podMTU",
		Reason: fmt.Sprintf("%d does not fit the uplink after %d bytes of encapsulation; pods get %d", want, config.EncapOverhead, mtu),
		Remedy: fmt.Sprintf("raise the uplink's MTU to %d, or leave podMTU out", want+config.EncapOverhead),
	})
}

// servicesProblems: without the XDP shim nobody tells VPP which connections the
// kernel translates.
func servicesProblems(cfg config.Config) []status.Problem {
	if cfg.Dataplane != config.DataplaneVPP {
		return nil
	}
	var problems []status.Problem
	if d := cfg.VPP.UplinkDriver; d != config.DriverAFXDP {
		problems = append(problems, status.Problem{
			Object: "configuration", Field: "vpp.uplinkDriver",
			Reason: d + ": answers that the kernel of this node has to translate (of services with a backend on another node) are given to pods untranslated while VPP carries the traffic",
			Remedy: "use af_xdp, or have kube-proxy masquerade all (masqueradeAll)",
		})
	}
	if d := cfg.VPP.PodDriver; d != config.DriverAFXDP {
		problems = append(problems, status.Problem{
			Object: "configuration", Field: "vpp.podDriver",
			Reason: d + ": packets of pods that the kernel of this node translates to a pod's address (services) are dropped while VPP carries the traffic",
			Remedy: "use af_xdp",
		})
	}
	return problems
}

func (c *Controller) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

// Ready says why pods cannot be wired, nil when they can.
func (c *Controller) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why != nil {
		return c.why
	}
	if mtu := c.podMTU(); mtu < config.MinPodMTU {
		return fmt.Errorf("the uplink's MTU leaves %d bytes to pods, IPv6 needs %d: raise the uplink's MTU to %d or more", mtu, config.MinPodMTU, config.MinPodMTU+config.EncapOverhead)
	}
	if e := c.dataplane.Kernel.Status().Error; e != "" {
		return errors.New(e)
	}
	return nil
}

// connected is the dataplane, zero before Connect.
func (c *Controller) connected() Dataplane {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dataplane
}

// Status is the agent's status.
func (c *Controller) Status() status.Status {
	ready := c.Ready()
	// Asking the dataplane may take time: not under the lock.
	d := c.connected()
	var version string
	if d.Version != nil {
		version = d.Version()
	}
	active := status.Dataplane{Active: switchover.ActiveKernel}
	if d.VPP != nil {
		active = d.VPP.Gate.Status()
	}
	active.Kind, active.Version = c.o.Config.Dataplane, version
	c.mu.Lock()
	defer c.mu.Unlock()
	_, synced := c.o.Source.Objects()
	s := status.Status{
		Version: status.Version, Node: c.o.Config.NodeName, Ready: ready == nil,
		Dataplane: active,
		Policies:  c.result.Policies, Endpoints: len(c.snapshot.Endpoints), PodMTU: c.podMTU(),
		Source:   status.Source{Kind: "file", Synced: synced},
		Problems: slices.Concat(c.configProblems(), c.result.Problems),
	}
	if d.Kernel != nil {
		s.Reconcile = d.Kernel.Status()
	}
	if d.VPP != nil {
		kernel := s.Reconcile
		s.Reconcile, s.Standby = d.VPP.Reconciler.Status(), &kernel
	}
	if ready != nil {
		s.Reason = ready.Error()
	}
	if c.self.Locator.IsValid() {
		s.Locator, s.EncapSource = c.self.Locator.String(), c.self.EncapSource.String()
	}
	for _, sid := range c.self.SIDs {
		s.SIDs = append(s.SIDs, status.SID{SID: publish.SIDText(sid.SID), Behaviour: string(sid.Behaviour), Table: sid.Table})
	}
	for _, p := range c.o.Source.Errors() {
		s.Source.Errors = append(s.Source.Errors, p.String())
	}
	if c.endpoints != nil {
		s.Problems = append(s.Problems, c.endpoints.Problems()...)
	}
	return s
}
