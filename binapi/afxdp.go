package binapi

import (
	"errors"
	"fmt"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/af_xdp"
)

// RetvalXDPSocket answers AFXDPCreate: the kernel refused the socket.
const RetvalXDPSocket = int32(api.SYSCALL_ERROR_2)

// AFXDPAllQueues are as many receive queues as the link has (VPP's
// AF_XDP_NUM_RX_QUEUES_ALL).
const AFXDPAllQueues = 65535

// AFXDP is an interface that is to be made. AF_XDP itself is used without
// copying where the link's driver offers that.
type AFXDP struct {
	// Link must exist and be up.
	Link string
	// Program is the path of an object file: its first program is put on the
	// link in place of the one that is there, and its map "xsks_map" gets the
	// sockets. Empty: a program that gives VPP all frames.
	Program string
	// Queues to receive from: 0 is one, AFXDPAllQueues all that the link has.
	Queues uint16
	// Ring and TxRing are the descriptors of a queue, powers of two from 256
	// on; 0 is VPP's default, 512.
	Ring, TxRing uint16
}

// BuffersPerAFXDPQueue is how many of VPP's packet buffers a queue with these
// rings takes: the fill ring is kept full for as long as the interface is up (as
// many as the receive ring). Traffic takes more, up to both rings again; a quarter
// of the transmit ring is allowed for, as queues are not all busy at once. 0 is
// VPP's default.
//
// VPP with buffers on 4 KiB pages has about a quarter fewer than it was asked
// for: none may cross a page's end. And each queue costs the kernel about 250
// bytes for every buffer that VPP has at all, and its creation time in
// proportion, while VPP does nothing else (VPP gives each the memory of all
// buffers as its UMEM): it pays to have few.
func BuffersPerAFXDPQueue(ring, txRing int) int {
	if ring <= 0 {
		ring = AFXDPDefaultRing
	}
	if txRing <= 0 {
		txRing = AFXDPDefaultRing
	}
	return ring + txRing/4
}

// AFXDPDefaultRing is VPP's (2 * VLIB_FRAME_SIZE), and AFXDPPodRing what pods
// get that ask for none: its smallest.
const (
	AFXDPDefaultRing = 512
	AFXDPPodRing     = 256
)

// maxProgramPath is what fits the message.
const maxProgramPath = 255

// AFXDPCreate makes an interface that takes frames of a kernel link through
// AF_XDP sockets. VPP invents a MAC for the interface.
func AFXDPCreate(x AFXDP, out *Index) (*Call, error) {
	if len(x.Program) > maxProgramPath {
		return nil, fmt.Errorf("af_xdp program %q: the path has %d bytes, VPP takes %d", x.Program, len(x.Program), maxProgramPath)
	}
	req := &af_xdp.AfXdpCreateV3{
		HostIf: x.Link, Prog: x.Program, RxqNum: x.Queues, RxqSize: x.Ring, TxqSize: x.TxRing,
		Mode: af_xdp.AF_XDP_API_MODE_AUTO,
		// The lock is a workaround for kernels before 5.6, and forbids the
		// interrupt mode when VPP has workers.
		Flags: af_xdp.AF_XDP_API_FLAGS_NO_SYSCALL_LOCK,
	}
	return newCall(x.Link, req, func(r *af_xdp.AfXdpCreateV3Reply) error {
		*out = Index(r.SwIfIndex)
		if r.Retval == 0 && r.SwIfIndex == 0 {
			// Interface 0 is VPP's own: where a program cannot be taken off
			// the link, or the kernel's verifier refuses the new one, VPP 25.10
			// makes no interface and answers so.
			return fmt.Errorf("%s: %w", req.GetMessageName(), ErrXDPProgram)
		}
		return retvalError(req.GetMessageName(), r.Retval, map[int32]string{
			-7:              "the link is not there, has fewer queues than asked for, or the rings are not powers of two from 256 on",
			-11:             "the kernel refused the packet memory (xsk_umem__create)",
			RetvalXDPSocket: "the kernel refused the socket (xsk_socket__create): is the link up, and its queue free?",
			-13:             "the program has no map xsks_map, or it has no place for the queue",
			-15:             "the program's file cannot be read as an eBPF object",
			-16:             "the kernel refused to put the program on the link (is the link's MTU too large for XDP?)",
		})
	}), nil
}

// ErrXDPProgram answers AFXDPCreate: VPP made no interface, as the program could
// not be loaded or the old one not be taken off the link.
var ErrXDPProgram = errors.New("VPP could not load its XDP program, or take the old one off the link; `vppctl show logging` says more")

// AFXDPDelete removes an AF_XDP interface, and leaves the link. Whichever XDP
// program is on the link is taken off it.
func AFXDPDelete(i Index) *Call {
	req := &af_xdp.AfXdpDelete{SwIfIndex: i.api()}
	return newCall(i.String(), req, func(r *af_xdp.AfXdpDeleteReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}
