package binapi

import (
	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/af_packet"
)

// RetvalInterfaceExists: VPP has
// the link already.
const RetvalInterfaceExists = int32(api.IF_ALREADY_EXISTS)

// AFPacketCreate makes an interface that shares a kernel link through a packet
// socket: the kernel sees every received frame as well. The link must exist;
// VPP brings it up.
func AFPacketCreate(link string, mac MAC, out *Index) *Call {
	req := &af_packet.AfPacketCreateV3{
		Mode: af_packet.AF_PACKET_API_MODE_ETHERNET, HwAddr: mac.api(), HostIfName: link,
		NumRxQueues: 1, NumTxQueues: 1,
	}
	return newCall(link, req, func(r *af_packet.AfPacketCreateV3Reply) error {
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
