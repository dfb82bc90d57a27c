package binapi

import (
	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/af_packet"
)

// RetvalInterfaceExists: VPP has
// the link already.
const RetvalInterfaceExists = int32(api.IF_ALREADY_EXISTS)

// AFPacket is an interface that is to be made.
type AFPacket struct {
	// Link must exist; VPP brings it up.
	Link string
	// MAC of the interface, and by VPP's hand of the link.
	MAC MAC
	// Queues are sockets to receive from; the kernel shares the flows out
	// among them. 0 is one.
	Queues uint16
	// Ring and TxRing are the frames of a queue; 0 is VPP's default, 1024.
	Ring, TxRing uint16
}

// AFPacketCreate makes an interface that shares a kernel link through packet
// sockets: the kernel sees every received frame as well.
func AFPacketCreate(p AFPacket, out *Index) *Call {
	req := &af_packet.AfPacketCreateV3{
		Mode: af_packet.AF_PACKET_API_MODE_ETHERNET, HwAddr: p.MAC.api(), HostIfName: p.Link,
		NumRxQueues: max(p.Queues, 1), NumTxQueues: 1,
		RxFramesPerBlock: uint32(p.Ring), TxFramesPerBlock: uint32(p.TxRing),
	}
	return newCall(p.Link, req, func(r *af_packet.AfPacketCreateV3Reply) error {
		*out = Index(r.SwIfIndex)
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// AFPacketDelete removes the interface that shares a link, and leaves the link.
func AFPacketDelete(link string) *Call {
	req := &af_packet.AfPacketDelete{HostIfName: link}
	return newCall(link, req, func(r *af_packet.AfPacketDeleteReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}
