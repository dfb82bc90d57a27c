package uplink

import (
	"errors"
	"fmt"
	"net"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// findLink is nil when there is no link of this name.
func findLink(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	return l, nil
}

// makeVeth makes the host's veth, as far as it is not there, and brings VPP's
// end up. Frames pass VPP as they are, so the host must finish its checksums
// and segments itself.
func makeVeth(d Description) error {
	end, err := findLink(d.HostLink)
	if err != nil {
		return err
	}
	if end == nil {
		mac, err := net.ParseMAC(d.Settings.MAC)
		if err != nil {
			return fmt.Errorf("uplink %s: MAC %s: %w", d.Link, d.Settings.MAC, err)
		}
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: d.Link, HardwareAddr: mac, MTU: d.Settings.MTU, TxQLen: d.Settings.TxQueue},
			PeerName:  d.HostLink,
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("uplink %s: veth %s: %w", d.Link, d.HostLink, err)
		}
		if end, err = netlink.LinkByName(d.HostLink); err != nil {
			return fmt.Errorf("uplink %s: veth %s: %w", d.Link, d.HostLink, err)
		}
	}
	if err := silence(d.HostLink); err != nil {
		return err
	}
	if err := netlink.LinkSetAlias(end, "the host's end is "+d.Link+"; made by vpp-manager"); err != nil {
		return fmt.Errorf("uplink %s: veth %s: %w", d.Link, d.HostLink, err)
	}
	if err := netlink.LinkSetMTU(end, d.Settings.MTU); err != nil {
		return fmt.Errorf("uplink %s: veth %s: MTU %d: %w", d.Link, d.HostLink, d.Settings.MTU, err)
	}
	if err := netlink.LinkSetUp(end); err != nil {
		return fmt.Errorf("uplink %s: veth %s: up: %w", d.Link, d.HostLink, err)
	}
	return offloadsOff(d.Link)
}

// silence keeps the kernel's IPv6 from speaking on a link.
func silence(link string) error { return writeSysctl(link, sysctlNoIPv6, "1") }

// offloadsOff lets the kernel finish checksums and segments before a frame
// reaches the link.
func offloadsOff(link string) error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("link %s: offloads: %w", link, err)
	}
	defer e.Close()
	have, err := e.Features(link)
	if err != nil {
		return fmt.Errorf("link %s: offloads: %w", link, err)
	}
	off := map[string]bool{}
	for _, f := range []string{"tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6", "tx-checksum-sctp",
		"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation", "tx-udp-segmentation"} {
		if have[f] {
			off[f] = false
		}
	}
	if len(off) == 0 {
		return nil
	}
	if err := e.Change(link, off); err != nil {
		return fmt.Errorf("link %s: offloads: %w", link, err)
	}
	return nil
}

// removeVeth is done when it was done before.
func removeVeth(hostLink string) error {
	l, err := findLink(hostLink)
	if err != nil || l == nil {
		return err
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("veth %s: %w", hostLink, err)
	}
	return nil
}
