package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/cni/api"
	"github.com/sidewinder-net/sidewinder/cni/client"
)

// Check compares what ADD answered with the agent's record, the pod's interface
// and the IPAM plugin's store.
func (p *Plugin) Check(ctx context.Context, args *skel.CmdArgs) error {
	conf, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	att, err := parseAttachment(conf, args)
	if err != nil {
		return err
	}
	prev, err := prevResult(conf)
	if err != nil {
		return err
	}
	agent := client.New(conf.Socket)
	defer agent.Close()
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	ep, err := agent.Endpoint(probe, att.containerID, att.ifName)
	if errors.Is(err, client.ErrNotFound) {
		return fail(CodeCheck, att.String(), "", "the agent does not know it", "delete the pod: its replacement is wired anew")
	}
	if err != nil {
		return agentError(err)
	}
	want, err := expected(att, prev, ep)
	if err != nil {
		return err
	}
	if err := verify(att, want, ep.MTU); err != nil {
		return err
	}
	return ipamCheck(ctx, conf, args.StdinData)
}

func prevResult(conf *netConf) (*current.Result, error) {
	object := "network " + conf.Name
	if conf.RawPrevResult == nil {
		return nil, fail(types.ErrInvalidNetworkConfig, object, "prevResult", "is missing", "the runtime must pass what ADD answered")
	}
	if err := version.ParsePrevResult(&conf.PluginConf); err != nil {
		return nil, fail(types.ErrInvalidNetworkConfig, object, "prevResult", err.Error(), "")
	}
	res, err := current.NewResultFromResult(conf.PrevResult)
	if err != nil {
		return nil, fail(types.ErrInvalidNetworkConfig, object, "prevResult", err.Error(), "")
	}
	return res, nil
}

// expected says what must be there. The agent's record of ADD's answer is
// preferred, because results before 1.1 leave out parts of routes; the runtime's
// must agree with it. Plugins after this one may have added to that: only what
// belongs to this interface is compared.
func expected(att attachment, prev *current.Result, ep api.Endpoint) (plan, error) {
	host := HostInterface(att.containerID, att.ifName)
	if ep.HostInterface != host || ep.HostMAC != api.GatewayMAC || ep.PodMAC != podMAC(att.containerID, att.ifName).String() {
		return plan{}, fail(CodeCheck, att.String(), "", "the agent's record names another interface or other MAC addresses", "delete the pod")
	}
	index := slices.IndexFunc(prev.Interfaces, func(i *current.Interface) bool {
		return i != nil && i.Sandbox != "" && i.Name == att.ifName
	})
	if index < 0 {
		return plan{}, fail(CodeCheck, att.String(), "prevResult", "the pod's interface is not in it", "")
	}
	if !slices.ContainsFunc(prev.Interfaces, func(i *current.Interface) bool { return i != nil && i.Sandbox == "" && i.Name == host }) {
		return plan{}, fail(CodeCheck, att.String(), "prevResult", "the host's interface "+host+" is not in it", "")
	}
	if mac := prev.Interfaces[index].Mac; mac != "" && mac != ep.PodMAC {
		return plan{}, fail(CodeCheck, att.String(), "prevResult", fmt.Sprintf("it has MAC address %s, the agent's record %s", mac, ep.PodMAC), "delete the pod")
	}
	var ips []*current.IPConfig
	for _, ipc := range prev.IPs {
		if ipc != nil && (ipc.Interface == nil || *ipc.Interface == index) {
			ips = append(ips, ipc)
		}
	}
	fromPrev, err := planFrom(ips, nil)
	if err != nil {
		return plan{}, fail(CodeCheck, att.String(), "prevResult", err.Error(), "")
	}
	if !sameAddrs(fromPrev.ips, ep.IPs) {
		return plan{}, fail(CodeCheck, att.String(), "prevResult", fmt.Sprintf("it has the addresses %v, the agent's record %v", fromPrev.ips, ep.IPs), "delete the pod")
	}
	if len(ep.Result) == 0 {
		return fromPrev, nil
	}
	var recorded current.Result
	if err := json.Unmarshal(ep.Result, &recorded); err != nil {
		return plan{}, fail(CodeCheck, att.String(), "", "the agent's record of the result cannot be read: "+err.Error(), "delete the pod")
	}
	want, err := planFrom(recorded.IPs, recorded.Routes)
	if err != nil {
		return plan{}, fail(CodeCheck, att.String(), "", "the agent's record of the result: "+err.Error(), "delete the pod")
	}
	return want, nil
}

func sameAddrs(a, b []netip.Addr) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, netip.Addr.Compare)
	slices.SortFunc(b, netip.Addr.Compare)
	return slices.Equal(a, b)
}

// verify compares the interface on both sides with the plan, and names the
// first difference.
func verify(att attachment, want plan, mtu int) error {
	differs := func(field, format string, args ...any) error {
		return fail(CodeCheck, att.String(), field, fmt.Sprintf(format, args...), "delete the pod: its replacement is wired anew")
	}
	name := HostInterface(att.containerID, att.ifName)
	host, err := hostEnd(name)
	if err != nil {
		return err
	}
	if host == nil {
		return differs("host interface", "%s does not exist", name)
	}
	if msg := linkDiffers(host, gatewayMAC(), mtu); msg != "" {
		return differs("host interface", "%s %s", name, msg)
	}
	podNS, err := openNetns(att)
	if err != nil {
		return err
	}
	defer podNS.Close()
	return podNS.Do(func(ns.NetNS) error {
		link, err := netlinksafe.LinkByName(att.ifName)
		if err != nil {
			return differs("pod interface", "%v", err)
		}
		if link.Type() != "veth" || link.Attrs().ParentIndex != host.Attrs().Index {
			return differs("pod interface", "it is not the other end of %s", name)
		}
		if msg := linkDiffers(link, podMAC(att.containerID, att.ifName), mtu); msg != "" {
			return differs("pod interface", "it %s", msg)
		}
		return verifyLayer3(link, want, differs)
	})
}

func linkDiffers(l netlink.Link, mac net.HardwareAddr, mtu int) string {
	a := l.Attrs()
	switch {
	case a.Flags&net.FlagUp == 0:
		return "is down"
	case !bytes.Equal(a.HardwareAddr, mac):
		return fmt.Sprintf("has MAC address %s instead of %s", a.HardwareAddr, mac)
	case a.MTU != mtu:
		return fmt.Sprintf("has MTU %d instead of %d", a.MTU, mtu)
	}
	return ""
}

// verifyLayer3 works in the pod's namespace. Addresses and routes that others
// have added are no difference.
func verifyLayer3(link netlink.Link, want plan, differs func(field, format string, args ...any) error) error {
	addrs, err := netlinksafe.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return differs("addresses", "%v", err)
	}
	for _, ip := range want.ips {
		n := hostNet(ip)
		if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IPNet != nil && a.IPNet.String() == n.String() }) {
			return differs("addresses", "%s is missing", n.String())
		}
	}
	for _, gw := range want.gateways() {
		n := neighbour(link, gw)
		have, err := netlink.NeighList(n.LinkIndex, n.Family)
		if err != nil {
			return differs("neighbours", "%v", err)
		}
		if !slices.ContainsFunc(have, func(h netlink.Neigh) bool {
			return h.IP.Equal(n.IP) && h.State&netlink.NUD_PERMANENT != 0 && bytes.Equal(h.HardwareAddr, n.HardwareAddr)
		}) {
			return differs("neighbours", "the permanent entry %s lladdr %s is missing", gw, n.HardwareAddr)
		}
	}
	for _, r := range want.kernelRoutes(link) {
		family := netlink.FAMILY_V4
		if r.Dst.IP.To4() == nil {
			family = netlink.FAMILY_V6
		}
		filter := &netlink.Route{LinkIndex: r.LinkIndex, Table: r.Table}
		if filter.Table == 0 {
			filter.Table = mainTable
		}
		have, err := netlinksafe.RouteListFiltered(family, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		if err != nil {
			return differs("routes", "%v", err)
		}
		if !slices.ContainsFunc(have, func(h netlink.Route) bool {
			return routeDst(h, family) == r.Dst.String() && h.Gw.Equal(r.Gw) && (r.Priority == 0 || h.Priority == r.Priority)
		}) {
			via := "on the link"
			if r.Gw != nil {
				via = "via " + r.Gw.String()
			}
			return differs("routes", "%s %s is missing", r.Dst, via)
		}
	}
	return nil
}

// routeDst writes a route's destination; the kernel tells a default route by
// none.
func routeDst(r netlink.Route, family int) string {
	switch {
	case r.Dst != nil:
		return r.Dst.String()
	case family == netlink.FAMILY_V4:
		return "0.0.0.0/0"
	}
	return "::/0"
}
