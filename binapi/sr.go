package binapi

import (
	"errors"
	"fmt"
	"net/netip"

	"go.fd.io/govpp/binapi/ip_types"
	"go.fd.io/govpp/binapi/sr"
	"go.fd.io/govpp/binapi/sr_types"
)

// MaxSegments is the longest segment list that the messages can carry.
const MaxSegments = 16

// SRBehaviour is an endpoint behaviour in VPP's numbering.
type SRBehaviour uint8

// The behaviours used (RFC 8986 §4, RFC 9800 §4).
const (
	SREnd    = SRBehaviour(sr_types.SR_BEHAVIOR_API_END)
	SREndDT4 = SRBehaviour(sr_types.SR_BEHAVIOR_API_DT4)
	SREndDT6 = SRBehaviour(sr_types.SR_BEHAVIOR_API_DT6)
	// SREndUN is uN in its general form. Over the API it always means a /48
	// with 16-bit uSIDs. (VPP's other form, "perf", shifts without looking
	// and so loses packets that carry an SRH after the last uSID.)
	SREndUN = SRBehaviour(sr_types.SR_BEHAVIOR_API_END_UN)
	// SREndUNPerf is reported by the dump only.
	SREndUNPerf = SRBehaviour(sr_types.SR_BEHAVIOR_API_END_UN_PERF)
)

// UNPrefixBits is the length of a uN's prefix over the API.
const UNPrefixBits = 48

// LocalSID is a local SID.
type LocalSID struct {
	SID       netip.Addr
	Behaviour SRBehaviour
	// Table for the inner lookup (End.DT4, End.DT6).
	Table uint32
	// FIBTable is the table that the SID itself is in.
	FIBTable uint32
	// PSP: penultimate segment pop of the SRH (RFC 8986 §4.16.1).
	PSP bool
}

// Return values of the SRv6 messages: they are not VPP's common ones.
const (
	// RetvalSIDExists answers an addition.
	RetvalSIDExists = -1
	// RetvalSIDAbsent answers a deletion.
	RetvalSIDAbsent = -2
	// RetvalPolicyExists answers an addition.
	RetvalPolicyExists = -12
	// RetvalPolicyAbsent answers a change or a deletion.
	RetvalPolicyAbsent = -1
	// RetvalSteeringNoPolicy answers an addition.
	RetvalSteeringNoPolicy = -2
	// RetvalSteeringAbsent answers a deletion.
	RetvalSteeringAbsent = -4
)

func localSIDWords() map[int32]string {
	return map[int32]string{
		RetvalSIDExists: "the SID exists",
		RetvalSIDAbsent: "there is no such SID",
		-3:              "there is no such FIB table",
		-4:              "there is a route to the same prefix already; remove it",
		-5:              "there is no adjacency to the next hop",
		-6:              "the behaviour's plugin refused",
	}
}

func policyWords() map[int32]string {
	return map[int32]string{
		RetvalPolicyAbsent: "there is no policy with this binding SID",
		RetvalPolicyExists: "the binding SID is in use by a policy or a route; remove that one",
		-13:                "there is no such FIB table",
		-21:                "the policy's only segment list cannot be removed",
		-22:                "the policy has no such segment list",
		-32:                "the policy has no such segment list",
	}
}

func steeringWords() map[int32]string {
	return map[int32]string{
		-1:                     "traffic of this type cannot be steered",
		RetvalSteeringNoPolicy: "there is no policy with this binding SID",
		-3:                     "there is no such interface",
		RetvalSteeringAbsent:   "there is no such steering entry",
		-5:                     "IPv4 can be steered into an encapsulating policy only",
	}
}

// SRLocalSIDAdd adds a local SID.
func SRLocalSIDAdd(l LocalSID) *Call { return localSID(l, false) }

// SRLocalSIDDel deletes a local SID; its SID, behaviour and FIBTable must be
// those it was added with. One that was made on VPP's command line with another
// prefix length than its behaviour has over the API, or by "address" alone, is
// answered with RetvalSIDAbsent and stays.
func SRLocalSIDDel(l LocalSID) *Call { return localSID(l, true) }

func localSID(l LocalSID, del bool) *Call {
	req := &sr.SrLocalsidAddDel{
		IsDel: del, Localsid: apiAddr6(l.SID), Behavior: sr_types.SrBehavior(l.Behaviour),
		EndPsp: l.PSP, SwIfIndex: NoInterface.api(), FibTable: l.FIBTable,
	}
	if l.Behaviour == SREndDT4 || l.Behaviour == SREndDT6 {
		// The field doubles as the number of the inner lookup's table.
		req.SwIfIndex = Index(l.Table).api()
	}
	return newCall(l.SID.String(), req, func(r *sr.SrLocalsidAddDelReply) error {
		return retvalError(req.GetMessageName(), r.Retval, localSIDWords())
	})
}

// SRLocalSIDs dumps the local SIDs. A uN's prefix length is not among what
// VPP tells.
func SRLocalSIDs(out *[]LocalSID) *Call {
	return newDump(&sr.SrLocalsidsDump{}, func(d *sr.SrLocalsidsDetails) {
		l := LocalSID{SID: goAddr6(d.Addr), Behaviour: SRBehaviour(d.Behavior), FIBTable: d.FibTable, PSP: d.EndPsp}
		if l.Behaviour == SREndDT4 || l.Behaviour == SREndDT6 {
			l.Table = d.XconnectIfaceOrVrfTable
		}
		*out = append(*out, l)
	})
}

// SegmentList is one of a policy's segment lists.
type SegmentList struct {
	Segments []netip.Addr
	Weight   uint32
	// Index is VPP's own number for the list. In an SRPolicies dump only.
	Index uint32
}

// Policy is an SR policy.
type Policy struct {
	BSID  netip.Addr
	Lists []SegmentList
	// Encap: H.Encaps; otherwise SRH insertion.
	Encap bool
	// Spray: a copy into every list instead of one chosen by weight.
	Spray bool
	// EncapSource is the outer source address, copied from the global one
	// when the policy got its newest list.
	EncapSource netip.Addr
	FIBTable    uint32
}

func apiSegments(l SegmentList) (sr.Srv6SidList, error) {
	var out sr.Srv6SidList
	if len(l.Segments) == 0 || len(l.Segments) > MaxSegments {
		return out, fmt.Errorf("a segment list has 1 to %d segments, not %d", MaxSegments, len(l.Segments))
	}
	out.NumSids, out.Weight = uint8(len(l.Segments)), l.Weight
	for i, s := range l.Segments {
		out.Sids[i] = apiAddr6(s)
	}
	return out, nil
}

// SRPolicyAdd adds an encapsulating policy (H.Encaps, RFC 8986 §5.1) with its
// first segment list. Its outer source address is the global one of the moment.
func SRPolicyAdd(bsid netip.Addr, first SegmentList) (*Call, error) {
	sids, err := apiSegments(first)
	if err != nil {
		return nil, err
	}
	req := &sr.SrPolicyAddV2{BsidAddr: apiAddr6(bsid), IsEncap: true, Weight: first.Weight, Sids: sids}
	return newCall(bsid.String(), req, func(r *sr.SrPolicyAddV2Reply) error {
		return retvalError(req.GetMessageName(), r.Retval, policyWords())
	}), nil
}

// SRPolicyAddList adds a segment list to a policy.
func SRPolicyAddList(bsid netip.Addr, l SegmentList) (*Call, error) {
	sids, err := apiSegments(l)
	if err != nil {
		return nil, err
	}
	return policyMod(bsid, &sr.SrPolicyMod{Operation: sr_types.SR_POLICY_OP_API_ADD, Weight: l.Weight, Sids: sids}), nil
}

// SRPolicyDelList removes the segment list with this index from a policy.
// The last one cannot be removed.
func SRPolicyDelList(bsid netip.Addr, index uint32) *Call {
	return policyMod(bsid, &sr.SrPolicyMod{Operation: sr_types.SR_POLICY_OP_API_DEL, SlIndex: index})
}

func policyMod(bsid netip.Addr, req *sr.SrPolicyMod) *Call {
	req.BsidAddr = apiAddr6(bsid)
	return newCall(bsid.String(), req, func(r *sr.SrPolicyModReply) error {
		return retvalError(req.GetMessageName(), r.Retval, policyWords())
	})
}

// SRPolicyDel deletes a policy. No steering entry may refer to it any more:
// VPP does not check, and would take whichever policy gets its place.
func SRPolicyDel(bsid netip.Addr) *Call {
	req := &sr.SrPolicyDel{BsidAddr: apiAddr6(bsid)}
	return newCall(bsid.String(), req, func(r *sr.SrPolicyDelReply) error {
		return retvalError(req.GetMessageName(), r.Retval, policyWords())
	})
}

// SRPolicies dumps the policies with all but the lists' indexes.
func SRPolicies(out *[]Policy) *Call {
	return newDump(&sr.SrPoliciesV2Dump{}, func(d *sr.SrPoliciesV2Details) {
		p := Policy{
			BSID: goAddr6(d.Bsid), Encap: d.IsEncap, Spray: d.Type == sr.SR_API_POLICY_TYPE_SPRAY,
			EncapSource: goAddr6(d.EncapSrc), FIBTable: d.FibTable,
			Lists: make([]SegmentList, len(d.SidLists)),
		}
		for i, l := range d.SidLists {
			p.Lists[i] = SegmentList{Segments: goSegments(l.NumSids, l.Sids), Weight: l.Weight}
		}
		*out = append(*out, p)
	})
}

// SRPolicyLists dumps the policies with the lists' indexes, and without the
// outer source address.
func SRPolicyLists(out *[]Policy) *Call {
	return newDump(&sr.SrPoliciesWithSlIndexDump{}, func(d *sr.SrPoliciesWithSlIndexDetails) {
		p := Policy{
			BSID: goAddr6(d.Bsid), Encap: d.IsEncap, Spray: d.IsSpray, FIBTable: d.FibTable,
			Lists: make([]SegmentList, len(d.SidLists)),
		}
		for i, l := range d.SidLists {
			p.Lists[i] = SegmentList{Segments: goSegments(l.NumSids, l.Sids), Weight: l.Weight, Index: l.SlIndex}
		}
		*out = append(*out, p)
	})
}

func goSegments(n uint8, sids [MaxSegments]ip_types.IP6Address) []netip.Addr {
	segs := make([]netip.Addr, min(int(n), MaxSegments))
	for i := range segs {
		segs[i] = goAddr6(sids[i])
	}
	return segs
}

// Steering sends a prefix into a policy.
type Steering struct {
	Table  uint32
	Prefix netip.Prefix
	BSID   netip.Addr
}

func (s Steering) trafficType() sr_types.SrSteer {
	if s.Prefix.Addr().Is4() {
		return sr_types.SR_STEER_API_IPV4
	}
	return sr_types.SR_STEER_API_IPV6
}

// SRSteeringAdd steers a prefix into a policy. An entry for the prefix that is
// there already is moved to this policy in one step.
func SRSteeringAdd(s Steering) *Call { return steering(s, false) }

// SRSteeringDel ends the steering of a prefix.
func SRSteeringDel(s Steering) *Call { return steering(s, true) }

func steering(s Steering, del bool) *Call {
	req := &sr.SrSteeringAddDel{
		IsDel: del, BsidAddr: apiAddr6(s.BSID), TableID: s.Table, Prefix: apiPrefix(s.Prefix),
		SwIfIndex: NoInterface.api(), TrafficType: s.trafficType(),
	}
	return newCall(s.Prefix.String(), req, func(r *sr.SrSteeringAddDelReply) error {
		return retvalError(req.GetMessageName(), r.Retval, steeringWords())
	})
}

// SRSteerings dumps the steering of prefixes; that of whole interfaces (layer
// 2) is left out.
func SRSteerings(out *[]Steering) *Call {
	return newDump(&sr.SrSteeringPolDump{}, func(d *sr.SrSteeringPolDetails) {
		if d.TrafficType == sr_types.SR_STEER_API_L2 {
			return
		}
		*out = append(*out, Steering{
			Table: d.FibTable, BSID: goAddr6(d.Bsid),
			Prefix: goFamilyPrefix(d.Prefix, d.TrafficType == sr_types.SR_STEER_API_IPV6),
		})
	})
}

// SRSetEncapSource sets the outer source address of policies that are added
// or get a list from now on; those that are there keep theirs.
func SRSetEncapSource(a netip.Addr) *Call {
	req := &sr.SrSetEncapSource{EncapsSource: apiAddr6(a)}
	return newCall(a.String(), req, func(r *sr.SrSetEncapSourceReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// SRSetEncapHopLimit sets the outer hop limit, 1 to 255, of segment lists that
// are added from now on; those that are there keep theirs.
func SRSetEncapHopLimit(n uint8) (*Call, error) {
	if n == 0 {
		return nil, errors.New("hop limit 0: packets would never leave the node")
	}
	req := &sr.SrSetEncapHopLimit{HopLimit: n}
	return newCall(fmt.Sprint(n), req, func(r *sr.SrSetEncapHopLimitReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	}), nil
}
