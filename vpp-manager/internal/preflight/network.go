package preflight

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// defaults are the names of the interfaces of the default IPv6 route, as the
// agent takes them.
func defaults() ([]string, error) {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, err
	}
	var names []string
	add := func(index int) {
		l, err := netlink.LinkByIndex(index)
		if err == nil && l.Type() != "lo" && l.Attrs().Name != "lo" && !slices.Contains(names, l.Attrs().Name) {
			names = append(names, l.Attrs().Name)
		}
	}
	for _, r := range routes {
		if r.Dst != nil {
			if bits, _ := r.Dst.Mask.Size(); bits != 0 {
				continue
			}
		}
		if r.Type != 0 && r.Type != unix.RTN_UNICAST {
			continue
		}
		for _, nh := range r.MultiPath {
			add(nh.LinkIndex)
		}
		if r.LinkIndex > 0 {
			add(r.LinkIndex)
		}
	}
	return names, nil
}

// links are all interfaces of this network namespace but lo.
func links() ([]Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	kinds, names := map[int]string{}, map[int]string{}
	for _, l := range all {
		kinds[l.Attrs().Index], names[l.Attrs().Index] = l.Type(), l.Attrs().Name
	}
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return nil, fmt.Errorf("ethtool: %w", err)
	}
	defer tool.Close()
	features := xdpFeatures()
	var out []Link
	for _, l := range all {
		a := l.Attrs()
		if a.Name == "lo" {
			continue
		}
		link := Link{
			Name: a.Name, Index: a.Index, Kind: l.Type(), MTU: a.MTU, Up: a.RawFlags&unix.IFF_UP != 0,
			Master: names[a.MasterIndex], MasterKind: kinds[a.MasterIndex], PCI: pciOf(a.Name),
		}
		link.Driver, _ = tool.DriverName(a.Name)
		if c, err := tool.GetChannels(a.Name); err == nil {
			link.Queues = int(max(c.CombinedCount, c.RxCount))
			link.MaxQueues = int(max(c.MaxCombined, c.MaxRx))
		}
		if a.Xdp != nil && a.Xdp.Attached {
			link.XDP = &Program{ID: a.Xdp.ProgId, Name: programName(a.Xdp.ProgId), Mode: xdpMode(a.Xdp.AttachMode)}
		}
		if bits, found := features[a.Index]; found {
			link.Told = true
			link.Native = bits&(xdpBasic|xdpRedirect) == xdpBasic|xdpRedirect
			link.ZeroCopy = bits&xdpZeroCopy != 0
		} else {
			link.Native, link.ZeroCopy, link.Told = driverKnown(link.Driver)
		}
		if addrs, err := netlink.AddrList(l, netlink.FAMILY_V6); err == nil {
			for _, addr := range addrs {
				if ip, valid := netip.AddrFromSlice(addr.IP); valid && ip.IsGlobalUnicast() && !ip.Is4In6() {
					link.Addresses = append(link.Addresses, ip)
				}
			}
		}
		out = append(out, link)
	}
	return out, nil
}

func xdpMode(mode uint32) string {
	switch mode {
	case nl.XDP_ATTACHED_SKB:
		return "generic"
	case nl.XDP_ATTACHED_HW:
		return "offloaded"
	}
	return "native"
}

// pciPath finds the PCI function in the path of a device; a virtio NIC's is its
// parent.
var pciPath = regexp.MustCompile(`/([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])(/virtio\d+)?$`)

func pciOf(name string) string {
	path, err := filepath.EvalSymlinks(filepath.Join("/sys/class/net", name, "device"))
	if err != nil {
		return ""
	}
	if m := pciPath.FindStringSubmatch(path); m != nil {
		return m[1]
	}
	return ""
}

// linux/netdev.h: the generic netlink family "netdev" (Linux 6.3) tells what a
// driver can do with XDP.
const (
	netdevGet      = 1
	netdevIndex    = 1
	netdevFeatures = 3

	xdpBasic    = 1 << 0
	xdpRedirect = 1 << 1
	xdpZeroCopy = 1 << 3
)

// xdpFeatures are the bits of all interfaces; empty on older kernels.
func xdpFeatures() map[int]uint64 {
	out := map[int]uint64{}
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		return out
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_DUMP)
	req.AddData(&nl.Genlmsg{Command: netdevGet, Version: 1})
	answers, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return out
	}
	for _, m := range answers {
		if len(m) < nl.SizeofGenlmsg {
			continue
		}
		a := attributes(m[nl.SizeofGenlmsg:])
		if len(a[netdevIndex]) < 4 || len(a[netdevFeatures]) < 8 {
			continue
		}
		out[int(binary.NativeEndian.Uint32(a[netdevIndex]))] = binary.NativeEndian.Uint64(a[netdevFeatures])
	}
	return out
}

// driverKnown is for kernels that do not tell: drivers with native XDP as of
// Linux 6.2, and those of them with AF_XDP's zero copy.
func driverKnown(driver string) (native, zeroCopy, told bool) {
	switch driver {
	case "i40e", "ice", "ixgbe", "igc", "mlx5_core", "stmmac":
		return true, true, true
	case "ena", "virtio_net", "veth", "tun", "bnxt_en", "bnx2x", "ixgbevf", "igb", "mlx4_en", "nfp", "qede", "sfc",
		"hv_netvsc", "thunder-nic", "dpaa2-eth", "mvneta", "mvpp2", "gve", "vif", "cpsw":
		return true, false, true
	case "e1000", "e1000e", "vmxnet3", "tg3", "r8169", "bonding", "bridge", "802.1Q VLAN Support", "dummy":
		return false, false, true
	}
	return false, false, false
}
