package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/test/lab/fabric"
)

// natTable is the lab's own table in a node's nf_tables, one for each family.
const natTable = "lab-nat"

// Service is an address that a node translates to a pod's, as kube-proxy does.
type Service struct {
	// VIP and Port are what clients use; both are on TCP.
	VIP  netip.Addr
	Port uint16
	// Backend is where it leads to, of the VIP's family.
	Backend netip.AddrPort
}

// SetNAT makes a node's kernel translate the services' addresses, for pods and
// for the node itself, and hide its pods behind its own address towards
// everything that is no pod and no node (masquerade), as kube-proxy and
// a network plugin's default do. It replaces what an earlier call made.
func (n *Node) SetNAT(services ...Service) error {
	h, err := netns.GetFromName(n.Name)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", n.Name, err)
	}
	defer h.Close()
	c, err := nftables.New(nftables.WithNetNSFd(int(h)))
	if err != nil {
		return fmt.Errorf("%s: nf_tables: %w", n.Name, err)
	}
	for _, v4 := range []bool{true, false} {
		if err := n.translate(c, v4, services); err != nil {
			return fmt.Errorf("%s: nf_tables: %w", n.Name, err)
		}
	}
	return nil
}

// family is what differs between IPv4 and IPv6 packets in rules.
type family struct {
	table        nftables.TableFamily
	nat          uint32
	source, dest uint32 // offsets in the header
	pods, nodes  netip.Prefix
}

func familyOf(v4 bool) family {
	if v4 {
		return family{
			table: nftables.TableFamilyIPv4, nat: unix.NFPROTO_IPV4, source: 12, dest: 16,
			pods: netip.MustParsePrefix(pool4), nodes: netip.PrefixFrom(fabric.NodeAddr4(0), 24),
		}
	}
	return family{
		table: nftables.TableFamilyIPv6, nat: unix.NFPROTO_IPV6, source: 8, dest: 24,
		pods: netip.MustParsePrefix(pool6), nodes: netip.MustParsePrefix("fd53:77::/48"),
	}
}

func (n *Node) translate(c *nftables.Conn, v4 bool, services []Service) error {
	f := familyOf(v4)
	table := &nftables.Table{Family: f.table, Name: natTable}
	c.AddTable(table) // so that there is one to delete
	c.DelTable(table)
	c.AddTable(table)
	accept := nftables.ChainPolicyAccept
	chain := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority, Policy: &accept})
	}
	for _, ch := range []*nftables.Chain{
		chain("prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest),
		chain("output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest),
	} {
		for _, s := range services {
			if s.VIP.Is4() != v4 {
				continue
			}
			if s.Backend.Addr().Is4() != v4 {
				return errors.New("service " + s.VIP.String() + ": its backend is of the other family")
			}
			c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: f.service(s)})
		}
	}
	post := chain("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	c.AddRule(&nftables.Rule{Table: table, Chain: post, Exprs: f.masquerade()})
	return c.Flush()
}

// service: ip daddr VIP tcp dport PORT dnat to BACKEND.
func (f family) service(s Service) []expr.Any {
	e := f.address(f.dest, netip.PrefixFrom(s.VIP, s.VIP.BitLen()), expr.CmpOpEq)
	return append(e,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(s.Port)},
		&expr.Immediate{Register: 1, Data: s.Backend.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(s.Backend.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: f.nat, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
	)
}

// masquerade: ip saddr PODS ip daddr != PODS ip daddr != NODES masquerade.
func (f family) masquerade() []expr.Any {
	e := f.address(f.source, f.pods, expr.CmpOpEq)
	e = append(e, f.address(f.dest, f.pods, expr.CmpOpNeq)...)
	e = append(e, f.address(f.dest, f.nodes, expr.CmpOpNeq)...)
	return append(e, &expr.Masq{})
}

// address compares an address of the header with a prefix.
func (f family) address(offset uint32, p netip.Prefix, op expr.CmpOp) []expr.Any {
	raw := p.Masked().Addr().AsSlice()
	length := uint32(len(raw))
	mask := make([]byte, length)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: length, Mask: mask, Xor: make([]byte, length)},
		&expr.Cmp{Op: op, Register: 1, Data: raw},
	}
}
