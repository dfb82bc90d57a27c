package binapi

import (
	"net/netip"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/ip_neighbor"
)

// Neighbour is a layer-2 address of a neighbour.
type Neighbour struct {
	Interface Index
	IP        netip.Addr
	MAC       MAC
	// Static: it was set, not learnt.
	Static bool
}

// RetvalNoSuchEntry: there is no such object.
const RetvalNoSuchEntry = int32(api.NO_SUCH_ENTRY)

// NeighbourAdd adds or replaces a static neighbour. It resolves next hops and
// makes no route: routes are set on their own.
func NeighbourAdd(n Neighbour) *Call { return neighbour(n, true) }

// NeighbourDel deletes a neighbour.
func NeighbourDel(n Neighbour) *Call { return neighbour(n, false) }

func neighbour(n Neighbour, add bool) *Call {
	req := &ip_neighbor.IPNeighborAddDel{IsAdd: add, Neighbor: ip_neighbor.IPNeighbor{
		SwIfIndex: n.Interface.api(), MacAddress: n.MAC.api(), IPAddress: apiAddr(n.IP),
		Flags: ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC | ip_neighbor.IP_API_NEIGHBOR_FLAG_NO_FIB_ENTRY,
	}}
	return newCall(n.IP.String()+" "+n.Interface.String(), req, func(r *ip_neighbor.IPNeighborAddDelReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// Neighbours dumps one family's neighbours on all interfaces.
func Neighbours(is6 bool, out *[]Neighbour) *Call {
	req := &ip_neighbor.IPNeighborDump{SwIfIndex: NoInterface.api(), Af: family(is6)}
	return newDump(req, func(d *ip_neighbor.IPNeighborDetails) {
		*out = append(*out, Neighbour{
			Interface: Index(d.Neighbor.SwIfIndex), IP: goAddr(d.Neighbor.IPAddress), MAC: MAC(d.Neighbor.MacAddress),
			Static: d.Neighbor.Flags&ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC != 0,
		})
	})
}
