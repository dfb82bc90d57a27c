package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/cni/api"
)

// openNetns opens the pod's namespace, which must not be the node's own.
func openNetns(a attachment) (ns.NetNS, error) {
	podNS, err := ns.GetNS(a.netns)
	if err != nil {
		return nil, fail(types.ErrInvalidNetNS, a.String(), "CNI_NETNS", err.Error(), "the pod's sandbox may have ended meanwhile")
	}
	own, err := ns.GetCurrentNS()
	if err != nil {
		podNS.Close()
		return nil, fail(types.ErrInvalidNetNS, a.String(), "", "the plugin's own network namespace: "+err.Error(), "")
	}
	defer own.Close()
	if same, err := sameFile(podNS, own); err != nil || same {
		podNS.Close()
		reason := "it is the node's own network namespace"
		if err != nil {
			reason = err.Error()
		}
		return nil, fail(types.ErrInvalidNetNS, a.String(), "CNI_NETNS", reason, "a pod on the host's network needs no plugin")
	}
	return podNS, nil
}

func sameFile(a, b ns.NetNS) (bool, error) {
	var x, y unix.Stat_t
	if err := errors.Join(unix.Fstat(int(a.Fd()), &x), unix.Fstat(int(b.Fd()), &y)); err != nil {
		return false, err
	}
	return x.Dev == y.Dev && x.Ino == y.Ino, nil
}

// configurePod gives the pod's end its addresses, routes and neighbours. The
// host end is up already.
func configurePod(podNS ns.NetNS, ifName string, p plan, node api.NodeConfig) error {
	return podNS.Do(func(ns.NetNS) error {
		link, err := netlinksafe.LinkByName(ifName)
		if err != nil {
			return interfaceError(ifName, "looking for it in the pod", err)
		}
		if node.DisableTxChecksum {
			if err := disableTxChecksum(ifName); err != nil {
				return interfaceError(ifName, "turning checksum offload off in the pod", err)
			}
		}
		if err := prepareIPv6(ifName, p.has6()); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return interfaceError(ifName, "bringing it up in the pod", err)
		}
		for _, ip := range p.ips {
			n := hostNet(ip)
			addr := &netlink.Addr{IPNet: &n}
			if ip.Is6() {
				// The address is IPAM's to give; nobody else is on the link.
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return interfaceError(ifName, fmt.Sprintf("adding address %s in the pod", ip), err)
			}
		}
		for _, gw := range p.gateways() {
			if err := netlink.NeighSet(neighbour(link, gw)); err != nil {
				return interfaceError(ifName, fmt.Sprintf("adding the gateway %s as a neighbour in the pod", gw), err)
			}
		}
		for _, r := range p.kernelRoutes(link) {
			if err := netlink.RouteAdd(&r); err != nil {
				return interfaceError(ifName, fmt.Sprintf("adding route %s in the pod", r.Dst), err)
			}
		}
		return nil
	})
}

// prepareIPv6 sets what must be set before the interface comes up. Router
// advertisements are never taken: the plugin says what the routes are.
func prepareIPv6(ifName string, wanted bool) error {
	conf := "ipv6/conf/" + ifName + "/"
	settings := [][2]string{{conf + "accept_ra", "0"}}
	if wanted {
		settings = append(settings,
			[2]string{"ipv6/conf/lo/disable_ipv6", "0"},
			[2]string{conf + "disable_ipv6", "0"})
	}
	for _, s := range settings {
		err := setSysctl(s[0], s[1])
		switch {
		case err == nil:
		case errors.Is(err, fs.ErrNotExist) && !wanted: // A kernel without IPv6.
			return nil
		case errors.Is(err, fs.ErrNotExist):
			return fail(CodeInterface, "interface "+ifName, "", "the pod was given an IPv6 address, but the kernel has no IPv6 (no net."+s[0]+")",
				"enable IPv6 on the node, or take the IPv6 range out of the IPAM configuration")
		default:
			return interfaceError(ifName, "setting net."+s[0]+" in the pod", err)
		}
	}
	return nil
}

// gateways are those that the pod's addresses need.
func (p plan) gateways() []netip.Addr {
	var out []netip.Addr
	if p.has4() {
		out = append(out, api.GatewayIPv4)
	}
	if p.has6() {
		out = append(out, api.GatewayIPv6)
	}
	return out
}

func neighbour(link netlink.Link, gw netip.Addr) *netlink.Neigh {
	family := netlink.FAMILY_V4
	if gw.Is6() {
		family = netlink.FAMILY_V6
	}
	return &netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: family, State: netlink.NUD_PERMANENT,
		IP: gw.AsSlice(), HardwareAddr: gatewayMAC(),
	}
}

// kernelRoutes are the pod's routes in the order in which the kernel takes them:
// it wants the IPv4 gateway on the link before it is used. IPv6 needs no such
// route, a link-local next hop with its device is enough.
func (p plan) kernelRoutes(link netlink.Link) []netlink.Route {
	index := link.Attrs().Index
	var out []netlink.Route
	if p.has4() {
		gw := hostNet(api.GatewayIPv4)
		out = append(out, netlink.Route{LinkIndex: index, Dst: &gw, Scope: netlink.SCOPE_LINK})
	}
	for _, r := range p.routes {
		dst := ipNet(r.dst)
		k := netlink.Route{
			LinkIndex: index, Dst: &dst, Gw: gateway(r.dst.Addr()).AsSlice(),
			MTU: r.mtu, AdvMSS: r.advMSS, Priority: r.metric, Table: r.table,
		}
		if r.dst.Addr().Is4() {
			// The gateway's own route is in the main table only.
			k.Flags = int(netlink.FLAG_ONLINK)
		}
		out = append(out, k)
	}
	return out
}

// checksumFeatures are the kernel's names for what "ethtool -K tx off" turns
// off. Segmentation offload, which needs them, goes with them.
var checksumFeatures = []string{"tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6", "tx-checksum-sctp"}

// disableTxChecksum makes the pod's kernel write whole checksums. It works on
// the calling thread's network namespace.
func disableTxChecksum(ifName string) error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer e.Close()
	have, err := e.Features(ifName)
	if err != nil {
		return err
	}
	off := map[string]bool{}
	for _, f := range checksumFeatures {
		if have[f] {
			off[f] = false
		}
	}
	if len(off) == 0 {
		return nil
	}
	return e.Change(ifName, off)
}
