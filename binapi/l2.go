package binapi

import (
	"fmt"
	"net/netip"

	"go.fd.io/govpp/binapi/classify"
	"go.fd.io/govpp/binapi/l2"
)

// Bridge is a bridge domain: a layer 2 network inside VPP.
type Bridge struct {
	ID      uint32
	Tag     string
	Learn   bool
	Members []Index
}

// Bridges dumps all bridge domains.
func Bridges(out *[]Bridge) *Call {
	req := &l2.BridgeDomainDump{BdID: ^uint32(0), SwIfIndex: NoInterface.api()}
	return newDump(req, func(d *l2.BridgeDomainDetails) {
		b := Bridge{ID: d.BdID, Tag: d.BdTag, Learn: d.Learn}
		for _, m := range d.SwIfDetails {
			b.Members = append(b.Members, Index(m.SwIfIndex))
		}
		*out = append(*out, b)
	})
}

// BridgeAddWire makes a bridge domain that learns nothing: every frame goes out
// of all other members. With two members it is a wire.
func BridgeAddWire(id uint32, tag string) *Call {
	req := &l2.BridgeDomainAddDelV2{BdID: id, Flood: true, UuFlood: true, Forward: true, BdTag: tag, IsAdd: true}
	return newCall(fmt.Sprintf("bridge %d", id), req, func(r *l2.BridgeDomainAddDelV2Reply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// InterfaceSetBridge puts an interface into a bridge domain, or takes it out: it
// then works in layer 3 again.
func InterfaceSetBridge(i Index, id uint32, in bool) *Call {
	req := &l2.SwInterfaceSetL2Bridge{RxSwIfIndex: i.api(), BdID: id, Enable: in}
	return newCall(fmt.Sprintf("%s bridge %d", i, id), req, func(r *l2.SwInterfaceSetL2BridgeReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// ClassifyTable is the number of a classify table.
type ClassifyTable uint32

// NoClassifyTable stands for none.
const NoClassifyTable = ^ClassifyTable(0)

// A Taking is a rule of a take table: IPv6 packets in frames to MAC, with a
// destination in Prefix, are taken out of layer 2 and processed as IPv6.
type Taking struct {
	MAC    MAC
	Prefix netip.Prefix
}

// Sizes of the headers that a take table looks at, and of the vectors that VPP
// matches.
const (
	etherSize    = 14
	ip6DstOffset = etherSize + 24
	vectorSize   = 16
	takeVectors  = 3
	// TakePrefixBits is the length of the prefixes of a take table.
	TakePrefixBits = 48
)

// takeMask are the bits that a take table compares: the frame's destination and
// type, and the prefix of the packet's destination.
func takeMask() []byte {
	m := make([]byte, takeVectors*vectorSize)
	for _, part := range [][2]int{{0, 6}, {12, 2}, {ip6DstOffset, TakePrefixBits / 8}} {
		for i := range part[1] {
			m[part[0]+i] = 0xff
		}
	}
	return m
}

func (t Taking) match() []byte {
	m := make([]byte, takeVectors*vectorSize)
	copy(m, t.MAC[:])
	m[12], m[13] = 0x86, 0xdd
	a := t.Prefix.Addr().As16()
	copy(m[ip6DstOffset:], a[:TakePrefixBits/8])
	return m
}

// ClassifyTables lists the classify tables.
func ClassifyTables(out *[]ClassifyTable) *Call {
	req := &classify.ClassifyTableIds{}
	return newCall("", req, func(r *classify.ClassifyTableIdsReply) error {
		for _, id := range r.Ids {
			*out = append(*out, ClassifyTable(id))
		}
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// TakeTableIs tells whether a table is one that TakeTableAdd made.
func TakeTableIs(t ClassifyTable, out *bool) *Call {
	req := &classify.ClassifyTableInfo{TableID: uint32(t)}
	return newCall(fmt.Sprintf("table %d", t), req, func(r *classify.ClassifyTableInfoReply) error {
		*out = r.MatchNVectors == takeVectors && r.SkipNVectors == 0 && string(r.Mask) == string(takeMask())
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// TakeTableAdd makes an empty table of Takings. What matches none goes on as it
// would without.
func TakeTableAdd(out *ClassifyTable) *Call {
	req := &classify.ClassifyAddDelTable{
		IsAdd: true, TableIndex: ^uint32(0), Nbuckets: 16, MemorySize: 1 << 16, MatchNVectors: takeVectors,
		NextTableIndex: ^uint32(0), MissNextIndex: ^uint32(0), Mask: takeMask(),
	}
	return newCall("", req, func(r *classify.ClassifyAddDelTableReply) error {
		*out = ClassifyTable(r.NewTableIndex)
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// Takings dumps a take table.
func Takings(t ClassifyTable, out *[]Taking) *Call {
	return newDump(&classify.ClassifySessionDump{TableID: uint32(t)}, func(d *classify.ClassifySessionDetails) {
		if len(d.Match) < takeVectors*vectorSize {
			return
		}
		var a [16]byte
		copy(a[:TakePrefixBits/8], d.Match[ip6DstOffset:])
		*out = append(*out, Taking{MAC: MAC(d.Match[:6]), Prefix: netip.PrefixFrom(netip.AddrFrom16(a), TakePrefixBits)})
	})
}

// TakingAdd adds a rule to a take table, TakingDelete removes it.
func TakingAdd(t ClassifyTable, k Taking) *Call    { return taking(t, k, true) }
func TakingDelete(t ClassifyTable, k Taking) *Call { return taking(t, k, false) }

func taking(t ClassifyTable, k Taking, add bool) *Call {
	const ip6Input = 3 // L2_INPUT_CLASSIFY_NEXT_IP6_INPUT, vnet/classify/vnet_classify.h
	req := &classify.ClassifyAddDelSession{
		IsAdd: add, TableIndex: uint32(t), HitNextIndex: ip6Input, OpaqueIndex: ^uint32(0), Advance: etherSize, Match: k.match(),
	}
	return newCall(k.Prefix.String(), req, func(r *classify.ClassifyAddDelSessionReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// InterfaceSetTake applies a take table to the IPv6 frames that arrive on an
// interface in a bridge; NoClassifyTable ends that.
func InterfaceSetTake(i Index, t ClassifyTable) *Call {
	none := uint32(NoClassifyTable)
	req := &classify.ClassifySetInterfaceL2Tables{SwIfIndex: i.api(), IP4TableIndex: none, IP6TableIndex: uint32(t), OtherTableIndex: none, IsInput: true}
	return newCall(fmt.Sprintf("%s table %d", i, t), req, func(r *classify.ClassifySetInterfaceL2TablesReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}
