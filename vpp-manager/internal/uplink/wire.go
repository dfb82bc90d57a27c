package uplink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/binapi"
)

// Connect joins the host's veths with the NICs in VPP, so that the host is on
// the network again. It is to be called as soon as VPP answers: the agent may
// need the network before it can do anything.
func (u *Uplinks) Connect(ctx context.Context, socket string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.held) == 0 {
		return nil
	}
	begin := time.Now()
	c, err := binapi.Dial(ctx, binapi.Options{Socket: socket, ClientName: "vpp-manager-uplinks", Require: []binapi.Group{binapi.GroupAFPacket, binapi.GroupDPDK}})
	if err != nil {
		return fmt.Errorf("uplinks: %w", err)
	}
	defer c.Close()
	var errs []error
	for _, d := range u.held {
		s, err := binapi.EnsureWire(ctx, c, wire(d))
		if err == nil && d.VDev != "" {
			// DPDK lowered it: VPP counts VLAN tags as part of it.
			err = setMTU(d.Aside, d.Settings.MTU)
		}
		if err == nil {
			err = u.mark(ctx, c, d, s)
		}
		if err == nil {
			err = announce(d.Link)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("uplink %s: %w", d.Link, err))
			continue
		}
		u.log.WithFields(logrus.Fields{"uplink": d.Link, "interface": s.NIC.Name, "duration": time.Since(begin)}).Info("The host is on the network, through VPP")
	}
	return errors.Join(errs...)
}

func wire(d Description) binapi.Wire {
	w := binapi.Wire{NIC: Interface(d.Link), HostLink: d.HostLink}
	if d.VDev == "" {
		w.MTU = d.Settings.MTU
	}
	return w
}

func setMTU(link string, mtu int) error {
	l, err := netlink.LinkByName(link)
	if err == nil {
		err = netlink.LinkSetMTU(l, mtu)
	}
	if err != nil {
		return fmt.Errorf("link %s: MTU %d: %w", link, mtu, err)
	}
	return nil
}

// mark tags VPP's interface as one that is on an uplink and waits for the
// agent.
func (u *Uplinks) mark(ctx context.Context, c *binapi.Conn, d Description, s binapi.WireState) error {
	if s.NIC.Tag != "" {
		return nil
	}
	link, err := netlink.LinkByName(d.Link)
	if err != nil {
		return err
	}
	tag := binapi.InterfaceSetTag(s.NIC.Index, fmt.Sprintf("sidewinder:parked:%s:%d:", d.Link, link.Attrs().Index))
	if err := c.Do(ctx, tag); err != nil {
		return err
	}
	return tag.Err
}
