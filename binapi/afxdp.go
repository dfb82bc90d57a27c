package binapi

import (
	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/af_xdp"
)

// RetvalXDPSocket answers AFXDPCreate: the kernel refused the socket.
const RetvalXDPSocket = int32(api.SYSCALL_ERROR_2)

// AFXDPCreate makes an interface that takes all frames of a kernel link through
// an AF_XDP socket on its first queue. The link must exist and be up. VPP
// invents a MAC for the interface.
func AFXDPCreate(link string, out *Index) *Call {
	req := &af_xdp.AfXdpCreateV3{
		HostIf: link, RxqNum: 1,
		// The lock is a workaround for kernels before 5.6, and forbids the
		// interrupt mode when VPP has workers.
		Flags: af_xdp.AF_XDP_API_FLAGS_NO_SYSCALL_LOCK,
	}
	return newCall(link, req, func(r *af_xdp.AfXdpCreateV3Reply) error {
		*out = Index(r.SwIfIndex)
		return retvalError(req.GetMessageName(), r.Retval, map[int32]string{
			-7:              "the link is not there, or has fewer queues than asked for",
			-11:             "the kernel refused the packet memory (xsk_umem__create)",
			RetvalXDPSocket: "the kernel refused the socket (xsk_socket__create): is the link up, and its queue free?",
		})
	})
}

// AFXDPDelete removes an AF_XDP interface, and leaves the link.
func AFXDPDelete(i Index) *Call {
	req := &af_xdp.AfXdpDelete{SwIfIndex: i.api()}
	return newCall(i.String(), req, func(r *af_xdp.AfXdpDeleteReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}
