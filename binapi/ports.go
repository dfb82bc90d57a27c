package binapi

import (
	"fmt"
	"net/netip"

	"go.fd.io/govpp/binapi/abf"
	"go.fd.io/govpp/binapi/acl"
	"go.fd.io/govpp/binapi/acl_types"
	"go.fd.io/govpp/binapi/fib_types"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/ip_types"
)

// PortRule matches packets of one family and protocol (0: any) by their
// destination port. VPP lets the later fragments of a datagram, which have no ports, match
// the first rule of their protocol.
type PortRule struct {
	Permit      bool
	IP6         bool
	Protocol    uint8
	First, Last uint16
}

// ACL is an access list of PortRules: the first that matches decides.
type ACL struct {
	Index uint32
	// Tag is ours, at most 63 bytes.
	Tag   string
	Rules []PortRule
	// Foreign: it has rules of another form, which are left out.
	Foreign bool
}

// ACLAdd makes an access list.
func ACLAdd(a ACL, index *uint32) *Call {
	req := &acl.ACLAddReplace{ACLIndex: ^uint32(0), Tag: a.Tag, Count: uint32(len(a.Rules))}
	for _, r := range a.Rules {
		any4or6 := apiPrefix(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
		if r.IP6 {
			any4or6 = apiPrefix(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
		}
		rule := acl_types.ACLRule{
			SrcPrefix: any4or6, DstPrefix: any4or6, Proto: ip_types.IPProto(r.Protocol),
			SrcportOrIcmptypeLast: 65535, DstportOrIcmpcodeFirst: r.First, DstportOrIcmpcodeLast: r.Last,
		}
		if r.Permit {
			rule.IsPermit = acl_types.ACL_ACTION_API_PERMIT
		}
		req.R = append(req.R, rule)
	}
	return newCall(a.Tag, req, func(r *acl.ACLAddReplaceReply) error {
		*index = r.ACLIndex
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// ACLDel removes an access list that nothing uses.
func ACLDel(index uint32) *Call {
	req := &acl.ACLDel{ACLIndex: index}
	return newCall(fmt.Sprintf("acl %d", index), req, func(r *acl.ACLDelReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// ACLs dumps the access lists.
func ACLs(out *[]ACL) *Call {
	return newDump(&acl.ACLDump{ACLIndex: ^uint32(0)}, func(d *acl.ACLDetails) {
		a := ACL{Index: d.ACLIndex, Tag: d.Tag}
		for _, r := range d.R {
			src, dst := goPrefix(r.SrcPrefix), goPrefix(r.DstPrefix)
			if src.Bits() != 0 || dst.Bits() != 0 || r.SrcportOrIcmptypeFirst != 0 || r.SrcportOrIcmptypeLast != 65535 || r.TCPFlagsMask != 0 {
				a.Foreign = true
				continue
			}
			a.Rules = append(a.Rules, PortRule{
				Permit: r.IsPermit == acl_types.ACL_ACTION_API_PERMIT, IP6: dst.Addr().Is6(), Protocol: uint8(r.Proto),
				First: r.DstportOrIcmpcodeFirst, Last: r.DstportOrIcmpcodeLast,
			})
		}
		*out = append(*out, a)
	})
}

// ABFPolicy forwards what an access list permits to one next hop (ACL-based
// forwarding), on the interfaces that it is attached to.
type ABFPolicy struct {
	// ID is ours to choose.
	ID  uint32
	ACL uint32
	// Path has a Gateway, whose family is the policy's.
	Path Path
	// Foreign: the policy has other paths than one of this form.
	Foreign bool
}

// ABFPolicyAdd makes a policy. One that is there gets the path besides those
// that it has.
func ABFPolicyAdd(p ABFPolicy) *Call { return abfPolicy(p, true) }

// ABFPolicyDel takes the path from a policy, and with the last one removes the
// policy. It must not be attached any more.
func ABFPolicyDel(p ABFPolicy) *Call { return abfPolicy(p, false) }

func abfPolicy(p ABFPolicy, add bool) *Call {
	paths := apiPaths([]Path{p.Path}, p.Path.Gateway.Is6())
	req := &abf.AbfPolicyAddDel{IsAdd: add, Policy: abf.AbfPolicy{PolicyID: p.ID, ACLIndex: p.ACL, NPaths: uint8(len(paths)), Paths: paths}}
	return newCall(fmt.Sprintf("policy %d", p.ID), req, func(r *abf.AbfPolicyAddDelReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// ABFPolicies dumps the policies.
func ABFPolicies(out *[]ABFPolicy) *Call {
	return newDump(&abf.AbfPolicyDump{}, func(d *abf.AbfPolicyDetails) {
		p := ABFPolicy{ID: d.Policy.PolicyID, ACL: d.Policy.ACLIndex, Foreign: len(d.Policy.Paths) != 1}
		for _, path := range d.Policy.Paths {
			if path.Type != fib_types.FIB_API_PATH_TYPE_NORMAL {
				p.Foreign = true
			}
			// No prefix: a host's own address as its next hop is told.
			p.Path = goPath(path, netip.Prefix{})
		}
		*out = append(*out, p)
	})
}

// ABFAttachment is a policy on an interface, for packets of one family that come
// in there.
type ABFAttachment struct {
	Policy    uint32
	Interface Index
	IP6       bool
}

// ABFAttach attaches a policy, which must be there: VPP does not check that.
func ABFAttach(a ABFAttachment) *Call { return abfAttach(a, true) }

// ABFDetach undoes exactly what ABFAttach did: VPP does not check the family.
func ABFDetach(a ABFAttachment) *Call { return abfAttach(a, false) }

func abfAttach(a ABFAttachment, add bool) *Call {
	req := &abf.AbfItfAttachAddDel{IsAdd: add, Attach: abf.AbfItfAttach{PolicyID: a.Policy, SwIfIndex: a.Interface.api(), IsIPv6: a.IP6}}
	return newCall(fmt.Sprintf("policy %d %s", a.Policy, a.Interface), req, func(r *abf.AbfItfAttachAddDelReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// ABFAttachments dumps what is attached where.
func ABFAttachments(out *[]ABFAttachment) *Call {
	return newDump(&abf.AbfItfAttachDump{}, func(d *abf.AbfItfAttachDetails) {
		*out = append(*out, ABFAttachment{Policy: d.Attach.PolicyID, Interface: Index(d.Attach.SwIfIndex), IP6: d.Attach.IsIPv6})
	})
}

// InterfaceSetTable puts an interface into a table of one family. It must have
// no address of that family yet.
func InterfaceSetTable(i Index, table uint32, is6 bool) *Call {
	req := &interfaces.SwInterfaceSetTable{SwIfIndex: i.api(), IsIPv6: is6, VrfID: table}
	return newCall(fmt.Sprintf("%s table %d", i, table), req, func(r *interfaces.SwInterfaceSetTableReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// Missing are the messages of a group that this VPP lacks, as it does without the
// plugins that bring them.
func (c *Conn) Missing(g Group) []MissingMessage {
	var out []MissingMessage
	for _, m := range missingMessages(c.gov, []Group{g}) {
		if m.Plugin != "" {
			out = append(out, m)
		}
	}
	return out
}
