// Package fabric builds the network between the nodes: every node has its own
// top-of-rack router (ToR), every ToR has one link to each of K spines, and all
// routers are Linux kernels that choose among equal paths by the outer source,
// destination and flow label (RFC 6438).
package fabric

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/test/lab/ns"
)

// hashFields are the kernel's FIB_MULTIPATH_HASH_FIELD bits for source,
// destination and flow label, and for nothing that only a look into the inner
// packet would tell.
const hashFields = "11" // 0x000b

// Fabric is the routers and the wires. Its methods may be called at once.
type Fabric struct {
	paths, mtu int

	mu       sync.Mutex
	handles  map[string]*netlink.Handle
	nodes    map[int]string
	locators map[netip.Prefix]Announcement
	outside  bool
}

// New makes the spines. MTU is that of every wire in bytes.
func New(paths, mtu int) (*Fabric, error) {
	f := &Fabric{paths: paths, mtu: mtu, handles: map[string]*netlink.Handle{}, nodes: map[int]string{}, locators: map[netip.Prefix]Announcement{}}
	for k := 1; k <= paths; k++ {
		if err := f.router(SpineName(k)); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// Spines are the names of the spines' namespaces.
func (f *Fabric) Spines() []string {
	names := make([]string, f.paths)
	for k := range names {
		names[k] = SpineName(k + 1)
	}
	return names
}

// plain makes a namespace whose addresses are usable at once, and a netlink
// socket in it.
func (f *Fabric) plain(name string) error {
	if err := ns.Create(name); err != nil {
		return err
	}
	h, err := ns.Handle(name)
	if err != nil {
		return errors.Join(err, ns.Delete(name))
	}
	f.handles[name] = h
	return ns.Sysctl(name,
		[2]string{"net/ipv6/conf/all/disable_ipv6", "0"},
		[2]string{"net/ipv6/conf/default/disable_ipv6", "0"},
		[2]string{"net/ipv6/conf/default/accept_dad", "0"},
		[2]string{"net/ipv6/conf/default/accept_ra", "0"},
		[2]string{"net/ipv4/conf/all/rp_filter", "0"},
		[2]string{"net/ipv4/conf/default/rp_filter", "0"})
}

func (f *Fabric) router(name string) error {
	if err := f.plain(name); err != nil {
		return err
	}
	return ns.Sysctl(name,
		[2]string{"net/ipv4/ip_forward", "1"},
		[2]string{"net/ipv6/conf/all/forwarding", "1"},
		[2]string{"net/ipv6/conf/default/forwarding", "1"},
		[2]string{"net/ipv6/fib_multipath_hash_policy", "3"},
		[2]string{"net/ipv6/fib_multipath_hash_fields", hashFields})
}

// AddNode makes a node's namespace, its ToR and their wires, and routes the
// node's underlay prefix everywhere. Frames towards a node with wholeFrames set
// leave the ToR with whole checksums and no larger than the MTU, as they would
// on a real wire: whoever reads raw frames there expects that.
func (f *Fabric) AddNode(node int, name string, wholeFrames bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.nodes[node]; ok {
		return fmt.Errorf("node %d: is already in the fabric", node)
	}
	if err := f.plain(name); err != nil {
		return err
	}
	f.nodes[node] = name
	if err := f.router(TorName(node)); err != nil {
		return err
	}
	if err := f.wire(name, UplinkName, NodeAddr(node), TorName(node), torNodePort, TorAddr(node)); err != nil {
		return err
	}
	if wholeFrames {
		if err := OffloadsOff(TorName(node), torNodePort); err != nil {
			return err
		}
	}
	for k := 1; k <= f.paths; k++ {
		tor, spine := linkAddrs(node, k)
		if err := f.wire(TorName(node), torPort(k), tor, SpineName(k), SpinePort(node), spine); err != nil {
			return err
		}
		if err := f.introduce(TorName(node), torPort(k), tor, SpineName(k), SpinePort(node), spine); err != nil {
			return err
		}
	}
	if err := f.address(name, UplinkName, netip.PrefixFrom(NodeAddr4(node), 32)); err != nil {
		return err
	}
	for _, all := range []netip.Addr{netip.IPv6Unspecified(), netip.IPv4Unspecified()} {
		if err := f.viaGateway(name, netip.PrefixFrom(all, 0), UplinkName, TorAddr(node)); err != nil {
			return err
		}
	}
	if err := f.viaGateway(TorName(node), prefix4(node), torNodePort, NodeAddr(node)); err != nil {
		return err
	}
	for other := range f.nodes {
		if other == node {
			continue
		}
		for _, p := range nodePrefixes(other) {
			if err := f.routeFrom(node, other, p); err != nil {
				return err
			}
		}
		for _, p := range nodePrefixes(node) {
			if err := f.routeFrom(other, node, p); err != nil {
				return err
			}
		}
	}
	if f.outside {
		if err := f.routeOutside(node); err != nil {
			return err
		}
	}
	for prefix, a := range f.locators {
		if err := f.routeFrom(node, a.Node, prefix); err != nil {
			return err
		}
	}
	return errors.Join(f.routeSpines(node, NodePrefix(node)), f.routeSpines(node, prefix4(node)))
}

func prefix4(node int) netip.Prefix { return netip.PrefixFrom(NodeAddr4(node), 32) }

// nodePrefixes are where a node's own addresses are.
func nodePrefixes(node int) []netip.Prefix { return []netip.Prefix{NodePrefix(node), prefix4(node)} }

// RemoveNode takes a node, its ToR and every route to it away, at once.
func (f *Fabric) RemoveNode(node int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	name, ok := f.nodes[node]
	if !ok {
		return nil
	}
	var errs []error
	for prefix, a := range f.locators {
		if a.Node == node {
			errs = append(errs, f.withdraw(prefix))
		}
	}
	for _, p := range nodePrefixes(node) {
		errs = append(errs, f.unroute(p))
	}
	for _, n := range []string{name, TorName(node)} {
		if h := f.handles[n]; h != nil {
			// Deleting one end of a wire deletes both, now: the namespace itself
			// may live on in a process for a moment.
			errs = append(errs, dropLinks(h))
			h.Close()
			delete(f.handles, n)
		}
		errs = append(errs, ns.Delete(n))
	}
	delete(f.nodes, node)
	return errors.Join(errs...)
}

// dropLinks deletes the veths of a namespace.
func dropLinks(h *netlink.Handle) error {
	links, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range links {
		if l.Type() == "veth" {
			errs = append(errs, h.LinkDel(l))
		}
	}
	return errors.Join(errs...)
}

// Close removes all namespaces. The kernel takes the wires in them down by and
// by, which is many times faster than deleting each.
func (f *Fabric) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for name, h := range f.handles {
		h.Close()
		errs = append(errs, ns.Delete(name))
	}
	clear(f.handles)
	clear(f.nodes)
	clear(f.locators)
	return errors.Join(errs...)
}

// wire makes a veth pair between two namespaces, addressed and up.
func (f *Fabric) wire(nsA, nameA string, addrA netip.Addr, nsB, nameB string, addrB netip.Addr) error {
	peer, err := netns.GetFromName(nsB)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", nsB, err)
	}
	defer peer.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = nameA, f.mtu
	if err := f.handles[nsA].LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: nameB, PeerMTU: uint32(f.mtu), PeerNamespace: netlink.NsFd(int(peer))}); err != nil {
		return fmt.Errorf("wire %s/%s to %s/%s: %w", nsA, nameA, nsB, nameB, err)
	}
	for _, end := range []struct {
		ns, name string
		addr     netip.Addr
	}{{nsA, nameA, addrA}, {nsB, nameB, addrB}} {
		h := f.handles[end.ns]
		link, err := h.LinkByName(end.name)
		if err != nil {
			return fmt.Errorf("wire %s/%s: %w", end.ns, end.name, err)
		}
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("wire %s/%s: up: %w", end.ns, end.name, err)
		}
		if err := f.address(end.ns, end.name, netip.PrefixFrom(end.addr, 64)); err != nil {
			return err
		}
	}
	return nil
}

// address puts an address on a link.
func (f *Fabric) address(nsName, name string, addr netip.Prefix) error {
	h := f.handles[nsName]
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s/%s: %w", nsName, name, err)
	}
	a := &netlink.Addr{IPNet: ipNet(addr)}
	if addr.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(link, a); err != nil {
		return fmt.Errorf("%s/%s: address %s: %w", nsName, name, addr, err)
	}
	return nil
}

// introduce makes the two ends of a wire permanent neighbours. The kernel's limit
// on learnt neighbours counts those of all namespaces together, and a large
// fabric would reach it.
func (f *Fabric) introduce(nsA, nameA string, addrA netip.Addr, nsB, nameB string, addrB netip.Addr) error {
	a, err := f.handles[nsA].LinkByName(nameA)
	if err != nil {
		return fmt.Errorf("wire %s/%s: %w", nsA, nameA, err)
	}
	b, err := f.handles[nsB].LinkByName(nameB)
	if err != nil {
		return fmt.Errorf("wire %s/%s: %w", nsB, nameB, err)
	}
	for _, n := range []struct {
		ns       string
		from, to netlink.Link
		addr     netip.Addr
	}{{nsA, a, b, addrB}, {nsB, b, a, addrA}} {
		err := f.handles[n.ns].NeighSet(&netlink.Neigh{
			LinkIndex: n.from.Attrs().Index, Family: netlink.FAMILY_V6, State: netlink.NUD_PERMANENT,
			IP: n.addr.AsSlice(), HardwareAddr: n.to.Attrs().HardwareAddr,
		})
		if err != nil {
			return fmt.Errorf("%s: neighbour %s: %w", n.ns, n.addr, err)
		}
	}
	return nil
}

// WholeFrames makes a node's ToR send it whole frames, as AddNode does when asked.
func WholeFrames(node int) error { return OffloadsOff(TorName(node), torNodePort) }

// OffloadsOff makes the kernel hand whole frames to a link: with their checksums
// and no larger than its MTU.
func OffloadsOff(nsName, link string) error {
	return ns.Do(nsName, func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return fmt.Errorf("ethtool: %w", err)
		}
		defer e.Close()
		off := map[string]bool{}
		have, err := e.Features(link)
		if err != nil {
			return fmt.Errorf("%s/%s: features: %w", nsName, link, err)
		}
		for _, name := range []string{
			"tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6", "tx-checksum-sctp",
			"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation",
			"tx-generic-segmentation", "tx-gso-list", "tx-udp-segmentation", "tx-ipxip4-segmentation", "tx-ipxip6-segmentation",
		} {
			if _, ok := have[name]; ok {
				off[name] = false
			}
		}
		if err := e.Change(link, off); err != nil {
			return fmt.Errorf("%s/%s: turn checksum and segmentation offload off: %w", nsName, link, err)
		}
		return nil
	})
}
