package binapi

import (
	"fmt"
	"net/netip"

	"go.fd.io/govpp/binapi/fib"
	"go.fd.io/govpp/binapi/fib_types"
	"go.fd.io/govpp/binapi/ip"
)

// Table is an IP table (VRF) of one family.
type Table struct {
	ID   uint32
	IP6  bool
	Name string
}

// IPTableAdd makes a table; one that exists stays as it is.
func IPTableAdd(t Table) *Call { return ipTable(t, true) }

// IPTableDel gives a table up; it goes when nothing uses it any more.
func IPTableDel(t Table) *Call { return ipTable(t, false) }

func ipTable(t Table, add bool) *Call {
	req := &ip.IPTableAddDel{IsAdd: add, Table: ip.IPTable{TableID: t.ID, IsIP6: t.IP6, Name: t.Name}}
	return newCall(fmt.Sprintf("table %d", t.ID), req, func(r *ip.IPTableAddDelReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// IPTables dumps the tables of both families, without those that VPP keeps for
// itself and that have no number.
func IPTables(out *[]Table) *Call {
	return newDump(&ip.IPTableDump{}, func(d *ip.IPTableDetails) {
		if d.Table.TableID == ^uint32(0) {
			return
		}
		*out = append(*out, Table{ID: d.Table.TableID, IP6: d.Table.IsIP6, Name: d.Table.Name})
	})
}

// FIBSource is who a route comes from. Among routes to one prefix VPP uses the
// one whose source has the lowest priority number.
type FIBSource struct {
	ID       uint8
	Priority uint8
	Name     string
}

// FIBSourceAdd registers a source under a name. VPP does not look for one of
// the same name: dump first.
func FIBSourceAdd(name string, priority uint8, id *uint8) *Call {
	req := &fib.FibSourceAdd{Src: fib.FibSource{Priority: priority, Name: name}}
	return newCall(name, req, func(r *fib.FibSourceAddReply) error {
		*id = r.ID
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// FIBSources dumps the sources.
func FIBSources(out *[]FIBSource) *Call {
	return newDump(&fib.FibSourceDump{}, func(d *fib.FibSourceDetails) {
		*out = append(*out, FIBSource{ID: d.Src.ID, Priority: d.Src.Priority, Name: d.Src.Name})
	})
}

// Path is one path of a route.
type Path struct {
	// Interface; NoInterface, without a Gateway, is a lookup in the main table.
	Interface Index
	// Gateway is the next hop; the zero Addr means that the destination
	// itself is on the link.
	Gateway netip.Addr
	Weight  uint8
}

// Route is a route. No paths: packets are dropped.
type Route struct {
	Table  uint32
	Prefix netip.Prefix
	// Source is the FIB source's id. In a dump: the best one's.
	Source uint8
	Paths  []Path
	// Foreign: the paths are of a kind that this program does not make.
	Foreign bool
}

// RouteReplace adds a route or replaces all its paths in one step.
func RouteReplace(r Route) *Call { return route(r, true) }

// RouteDel deletes a route of one source; one that is absent is no error.
func RouteDel(r Route) *Call { return route(r, false) }

func route(r Route, add bool) *Call {
	is6 := r.Prefix.Addr().Is6()
	req := &ip.IPRouteAddDelV2{IsAdd: add, Route: ip.IPRouteV2{TableID: r.Table, Prefix: apiPrefix(r.Prefix), Src: r.Source}}
	if add {
		req.Route.Paths = apiPaths(r.Paths, is6)
		req.Route.NPaths = uint8(len(req.Route.Paths))
	}
	return newCall(fmt.Sprintf("table %d %s", r.Table, r.Prefix), req, func(rep *ip.IPRouteAddDelV2Reply) error {
		return retvalError(req.GetMessageName(), rep.Retval, nil)
	})
}

func apiPaths(paths []Path, is6 bool) []fib_types.FibPath {
	proto := func(is6 bool) fib_types.FibPathNhProto {
		if is6 {
			return fib_types.FIB_API_PATH_NH_PROTO_IP6
		}
		return fib_types.FIB_API_PATH_NH_PROTO_IP4
	}
	if len(paths) == 0 {
		return []fib_types.FibPath{{SwIfIndex: uint32(NoInterface), Type: fib_types.FIB_API_PATH_TYPE_DROP, Proto: proto(is6), Weight: 1}}
	}
	out := make([]fib_types.FibPath, len(paths))
	for i, p := range paths {
		out[i] = fib_types.FibPath{SwIfIndex: uint32(p.Interface), Weight: p.Weight, Proto: proto(is6)}
		if p.Gateway.IsValid() {
			out[i].Proto = proto(p.Gateway.Is6())
			out[i].Nh.Address = apiAddr(p.Gateway).Un
		}
	}
	return out
}

// Routes dumps the routes of one table and family that one source made.
func Routes(table uint32, is6 bool, source uint8, out *[]Route) *Call {
	req := &ip.IPRouteV2Dump{Src: source, Table: ip.IPTable{TableID: table, IsIP6: is6}}
	return newDump(req, func(d *ip.IPRouteV2Details) {
		r := Route{Table: d.Route.TableID, Prefix: goPrefix(d.Route.Prefix), Source: d.Route.Src}
		for _, p := range d.Route.Paths {
			switch {
			case p.Type == fib_types.FIB_API_PATH_TYPE_DROP:
			case p.Type == fib_types.FIB_API_PATH_TYPE_NORMAL && Index(p.SwIfIndex) != NoInterface:
				r.Paths = append(r.Paths, goPath(p, r.Prefix))
			default:
				r.Foreign = true
			}
		}
		*out = append(*out, r)
	})
}

// goPath reads a path. The path of a host route that is on the link is told
// with the host itself as its next hop.
func goPath(p fib_types.FibPath, prefix netip.Prefix) Path {
	out := Path{Interface: Index(p.SwIfIndex), Weight: max(p.Weight, 1)}
	af := family(p.Proto == fib_types.FIB_API_PATH_NH_PROTO_IP6)
	if gw := goUnion(p.Nh.Address, af); !gw.IsUnspecified() && !(prefix.IsSingleIP() && gw == prefix.Addr()) {
		out.Gateway = gw
	}
	return out
}

// FlowHash is a set of fields that choose among equal paths.
type FlowHash uint32

// The fields, and what VPP uses unless told.
const (
	FlowHashSrc       = FlowHash(ip.IP_API_V2_FLOW_HASH_SRC_IP)
	FlowHashDst       = FlowHash(ip.IP_API_V2_FLOW_HASH_DST_IP)
	FlowHashSrcPort   = FlowHash(ip.IP_API_V2_FLOW_HASH_SRC_PORT)
	FlowHashDstPort   = FlowHash(ip.IP_API_V2_FLOW_HASH_DST_PORT)
	FlowHashProto     = FlowHash(ip.IP_API_V2_FLOW_HASH_PROTO)
	FlowHashReverse   = FlowHash(ip.IP_API_V2_FLOW_HASH_REVERSE)
	FlowHashSymmetric = FlowHash(ip.IP_API_V2_FLOW_HASH_SYMETRIC)
	FlowHashFlowLabel = FlowHash(ip.IP_API_V2_FLOW_HASH_FLOW_LABEL)
	FlowHashDefault   = FlowHashSrc | FlowHashDst | FlowHashSrcPort | FlowHashDstPort | FlowHashProto | FlowHashFlowLabel
)

// IPSetFlowHash sets a table's flow hash.
func IPSetFlowHash(table uint32, is6 bool, h FlowHash) *Call {
	req := &ip.SetIPFlowHashV3{TableID: table, Af: family(is6), FlowHashConfig: ip.IPFlowHashConfigV2(h)}
	return newCall(fmt.Sprintf("table %d", table), req, func(r *ip.SetIPFlowHashV3Reply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}
