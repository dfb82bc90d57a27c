package uplink

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A link that is put aside still hands its frames to the kernel, after the
// packet socket that VPP reads them from. The host has them through VPP, so
// here they are dropped: else it would answer twice.

func muteTable(link string) *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyNetdev, Name: "sidewinder-" + link}
}

// mute drops what the kernel receives on a link, behind packet sockets.
func mute(link string) error {
	if err := unmute(link); err != nil {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("link %s: nftables: %w", link, err)
	}
	t := c.AddTable(muteTable(link))
	chain := c.AddChain(&nftables.Chain{
		Name: "aside", Table: t, Type: nftables.ChainTypeFilter, Device: link,
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFirst,
	})
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("link %s: nftables ingress chain: %w; the kernel needs CONFIG_NFT_NETDEV", link, err)
	}
	return nil
}

// unmute is done when it was done before.
func unmute(link string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("link %s: nftables: %w", link, err)
	}
	c.DelTable(muteTable(link))
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("link %s: nftables: %w", link, err)
	}
	return nil
}

// putAside renames the host's link and takes the host's settings off it. The
// driver of VPP works on it under its new name.
func putAside(d Description) error {
	aside, err := findLink(d.Aside)
	if err != nil {
		return err
	}
	if aside == nil {
		link, err := netlink.LinkByName(d.Link)
		if err != nil {
			return fmt.Errorf("link %s: %w", d.Link, err)
		}
		// An interface that is up keeps its name; down, the kernel takes its
		// IPv6 addresses and its routes off it.
		if err := netlink.LinkSetDown(link); err != nil {
			return fmt.Errorf("link %s: down: %w", d.Link, err)
		}
		for _, alt := range d.Settings.AltNames {
			if err := netlink.LinkDelAltName(link, alt); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("link %s: name %s: %w", d.Link, alt, err)
			}
		}
		if err := netlink.LinkSetName(link, d.Aside); err != nil {
			return fmt.Errorf("link %s: rename to %s: %w", d.Link, d.Aside, err)
		}
		aside = link
	}
	if err := silence(d.Aside); err != nil {
		return err
	}
	if err := dropIPv4(aside); err != nil {
		return err
	}
	if err := mute(d.Aside); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(aside); err != nil {
		return fmt.Errorf("link %s: up: %w", d.Aside, err)
	}
	return nil
}

// dropIPv4 takes the IPv4 addresses off a link. Those of IPv6 go when it is
// down.
func dropIPv4(link netlink.Link) error {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("link %s: addresses: %w", link.Attrs().Name, err)
	}
	for _, a := range addrs {
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("link %s: address %s: %w", link.Attrs().Name, a.IPNet, err)
		}
	}
	return nil
}

// bringBack undoes putAside up to the name; the settings come after.
func bringBack(name string, d Description) error {
	if name == d.Link {
		return nil
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := netlink.LinkSetDown(link); err != nil {
		return fmt.Errorf("link %s: down: %w", name, err)
	}
	// The kernel changes their labels with the link's name.
	if err := dropIPv4(link); err != nil {
		return err
	}
	if err := netlink.LinkSetName(link, d.Link); err != nil {
		return fmt.Errorf("link %s: rename to %s: %w", name, d.Link, err)
	}
	return nil
}
