package preflight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sidewinder-net/sidewinder/api/node"
)

// findUplinks are the links to look at, and what is wrong with finding them.
func (in input) findUplinks() (links []Link, problems []Finding) {
	all, err := in.Links()
	if err != nil {
		return nil, []Finding{failure("see the message", "the interfaces cannot be listed: %v", err)}
	}
	specs, err := in.wanted()
	if err != nil {
		return nil, []Finding{failure("see the message", "%v", err)}
	}
	if len(specs) == 0 {
		names, err := in.Defaults()
		switch {
		case err != nil:
			return nil, []Finding{failure("see the message", "the routes cannot be listed: %v", err)}
		case len(names) == 0:
			return nil, []Finding{warning("name the interfaces with --uplink", "there is no default IPv6 route to tell which interface it is")}
		}
		for _, name := range names {
			specs = append(specs, wanted{name: name, driver: in.Driver})
		}
	}
	held := in.heldLinks()
	for _, w := range specs {
		if in.quick && w.driver == DPDK {
			// run has its own, complete checks, and repairs first what an earlier
			// life left behind: an interface that looks wrong here.
			continue
		}
		l, found := linkNamed(all, w.name)
		if pci := cmp.Or(w.pci, w.name); !found && in.exists("sys/bus/pci/devices/"+pci) {
			l, found = Link{Name: w.name, PCI: pci, Driver: base(in.link("sys/bus/pci/devices/" + pci + "/driver"))}, true
		}
		if !found {
			problems = append(problems, failure("name one of those that `ip link` shows, or start VPP in the network namespace where it is", "there is no such interface").of(w.name))
			continue
		}
		l.Use, l.Virtual, l.Held = w.driver, w.virtual, w.driver == DPDK && slices.Contains(held, w.name)
		links = append(links, l)
	}
	return links, problems
}

// heldLinks are those whose NIC the VPP of this run directory has now.
func (in input) heldLinks() []string {
	var names []string
	manager, err := node.ReadManager(in.path(in.RunDir))
	if err != nil || manager.State == node.StateStopped {
		return nil
	}
	for _, u := range manager.Uplinks {
		names = append(names, u.Link)
	}
	return names
}

// linkNamed looks for an interface by name or PCI address.
func linkNamed(all []Link, name string) (Link, bool) {
	for _, l := range all {
		if l.Name == name || l.PCI != "" && l.PCI == name {
			return l, true
		}
	}
	return Link{}, false
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func uplinkCheck(in input) []Finding {
	links, out := in.uplinks()
	for _, l := range links {
		switch {
		case l.Held:
			out = append(out, ok("VPP has its NIC now").of(l.Name))
		case l.Index == 0:
			out = append(out, ok("a PCI device (driver %s), no interface of the kernel's", orNothing(l.Driver)).of(l.Name))
		case !l.Up && l.Use == AFXDP && !in.quick:
			// xsk_bind returns ENETDOWN. At a start it may come up in time.
			out = append(out, failure("ip link set "+l.Name+" up", "the interface is down, and AF_XDP needs it up").of(l.Name))
		case !l.Up:
			out = append(out, warning("ip link set "+l.Name+" up", "the interface is down").of(l.Name))
		default:
			out = append(out, ok("%s, up", describe(l)).of(l.Name))
		}
	}
	return out
}

func describe(l Link) string {
	s := l.Kind
	if l.Driver != "" {
		s += " (" + l.Driver
		if l.PCI != "" {
			s += ", " + l.PCI
		}
		s += ")"
	}
	return s
}

func orNothing(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func uplinkAddress(in input) Finding {
	all, err := in.Links()
	if err != nil {
		return skipped("the interfaces cannot be listed: %v", err)
	}
	links, _ := in.uplinks()
	for _, l := range links {
		if len(l.Addresses) > 0 {
			return ok("%s on %s", l.Addresses[0], l.Name)
		}
	}
	for _, l := range all {
		if len(l.Addresses) > 0 {
			return ok("%s on %s, none on an uplink", l.Addresses[0], l.Name)
		}
	}
	return warning("give the node one: it is the source of the outer header and what other nodes route to", "no global or unique local IPv6 address on any interface")
}

func uplinkDriver(_ input, l Link) Finding {
	switch {
	case l.Native && l.ZeroCopy:
		return ok("%s: native XDP, AF_XDP without copying", describe(l))
	case l.Native:
		return ok("%s: native XDP, AF_XDP copies each packet", describe(l))
	case l.Told:
		return warning("a NIC whose driver has native XDP (i40e, ice, mlx5, ixgbe, igb, ena, virtio_net and others) is several times faster; nothing else differs",
			"%s: generic XDP, after the kernel has made its own packet buffer", describe(l))
	}
	return warning("with Linux 6.3 or later the kernel tells", "%s: not known to have native XDP; generic XDP is used where it has not", describe(l))
}

func uplinkQueues(in input, l Link) Finding {
	threads := max(1, in.Workers)
	switch {
	case l.Queues == 0:
		return ok("the driver does not tell: one")
	case l.Queues > threads && in.Workers > 0:
		return ok("%d (of %d possible) for %d workers: some serve several", l.Queues, l.MaxQueues, threads)
	case l.Queues < in.Workers && l.MaxQueues > l.Queues:
		return warning(fmt.Sprintf("ethtool -L %s combined %d, before VPP starts", l.Name, min(in.Workers, l.MaxQueues)),
			"%d (of %d possible) for %d workers: some have nothing to receive", l.Queues, l.MaxQueues, in.Workers)
	case l.Queues < in.Workers:
		return warning(fmt.Sprintf("--workers %d: more than queues do not help to receive", l.Queues), "%d, the most that the NIC has, for %d workers", l.Queues, in.Workers)
	}
	return ok("%d (of %d possible)", l.Queues, l.MaxQueues)
}

// What an AF_XDP frame takes from VPP's buffer beside the packet: the kernel
// keeps 256 bytes free in front (XDP_PACKET_HEADROOM), and there is an Ethernet
// header. VPP's own header is counted twice, as chunk and as headroom, so it
// falls out. Measured with VPP 25.10 and buffers of 2048 bytes: packets of 1778
// bytes arrive, and of 1779 do not.
const (
	xdpHeadroom    = 256
	ethernetHeader = 14
	encapOverhead  = 40
)

// frameLimit is the largest IP packet in bytes that AF_XDP delivers to VPP; the
// kernel drops larger ones without a word.
func (o Options) frameLimit() int { return o.BufferData - xdpHeadroom - ethernetHeader }

// nativeLimit is the largest MTU in bytes at which veth, and most NICs, take an
// XDP program in native mode: it must see a packet in one page.
const nativeLimit = 3498

// mostData is the largest buffer in bytes that AF_XDP takes: with VPP's header,
// it must not be larger than a page (the kernel's xdp_umem_reg).
const mostData = 4096 - 256

func uplinkMTU(in input, l Link) Finding {
	pod := l.MTU - encapOverhead
	if in.PodMTU > 0 {
		pod = min(pod, in.PodMTU)
	}
	limit := in.frameLimit()
	largest, what := pod, "packets of pods"
	if l.Use == AFXDP {
		largest, what = pod+encapOverhead, "encapsulated packets"
	}
	text := fmt.Sprintf("MTU %d: %s of up to %d bytes; VPP gets up to %d by AF_XDP with buffers of %d", l.MTU, what, largest, limit, in.BufferData)
	fit := limit - (largest - pod)
	smaller := fmt.Sprintf("podMTU: %d in the agent's configuration on all nodes, and --pod-mtu %d here", fit, fit)
	switch {
	case l.Use != AFXDP && in.PodDriver != AFXDP:
		return skipped("only for af_xdp")
	case in.BufferData > mostData:
		return failure(fmt.Sprintf("buffers of %d bytes at most: AF_XDP's must fit into a page", mostData), "buffers of %d bytes", in.BufferData)
	case l.Use == AFXDP && l.MTU > nativeLimit && l.Native:
		return failure(fmt.Sprintf("ip link set %s mtu %d (or what the driver takes), or --driver af_packet", l.Name, nativeLimit),
			"MTU %d: drivers refuse native XDP above about %d, where a packet does not fit into a page", l.MTU, nativeLimit)
	case in.PodDriver == AFXDP && pod > nativeLimit:
		return failure(fmt.Sprintf("podMTU: %d in the agent's configuration on all nodes, and --pod-mtu here", min(fit, nativeLimit)),
			"MTU %d: pods get %d, and veth refuses native XDP above about %d", l.MTU, pod, nativeLimit)
	case largest > limit:
		if want := largest + xdpHeadroom + ethernetHeader; want <= mostData {
			smaller += fmt.Sprintf("; or, with huge pages, larger buffers: `buffers { default data-size %d }` with --extra, and --buffer-data here", want)
		}
		return failure(smaller, "%s; the kernel drops larger ones silently", text)
	}
	return ok("%s", text)
}
