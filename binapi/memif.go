package binapi

import (
	"fmt"

	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/memif"
)

// MemifSocket is a unix socket on which VPP speaks the memif protocol.
type MemifSocket struct {
	// ID is ours to choose; 0 is VPP's default socket.
	ID uint32
	// Filename is a path, or AbstractSocket's text. A dump gives its first
	// MaxSocketText bytes.
	Filename string
}

// MaxSocketText is how much a dump tells of a socket's name, in bytes.
const MaxSocketText = 107

// AbstractSocket is the name of an abstract unix socket in the network namespace
// at a path, in VPP's notation. VPP opens the path when the first interface on
// the socket is made.
func AbstractSocket(name, netns string) string {
	return "abstract:" + name + ",netns_name=" + netns
}

// MemifSocketAdd names a socket. The same again is no error; another name for
// the same ID is.
func MemifSocketAdd(s MemifSocket) *Call { return memifSocket(s, true) }

// MemifSocketDel forgets a socket that no interface uses.
func MemifSocketDel(id uint32) *Call { return memifSocket(MemifSocket{ID: id}, false) }

func memifSocket(s MemifSocket, add bool) *Call {
	req := &memif.MemifSocketFilenameAddDelV2{IsAdd: add, SocketID: s.ID, SocketFilename: s.Filename}
	return newCall(fmt.Sprintf("socket %d %s", s.ID, s.Filename), req, func(r *memif.MemifSocketFilenameAddDelV2Reply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// MemifSockets dumps the sockets.
func MemifSockets(out *[]MemifSocket) *Call {
	return newDump(&memif.MemifSocketFilenameDump{}, func(d *memif.MemifSocketFilenameDetails) {
		*out = append(*out, MemifSocket{ID: d.SocketID, Filename: d.SocketFilename})
	})
}

// Memif is a shared-memory interface of which VPP is the master: the other side
// connects to its socket, and brings the memory.
type Memif struct {
	Index  Index
	Socket uint32
	// L3: IP packets without an Ethernet header.
	L3 bool
	// MAC of VPP's side, without L3.
	MAC MAC
	// Connected: somebody is at the other end. Only in a dump.
	Connected bool
}

// MemifCreate makes the interface, and with the first one on a socket the socket.
// Queues and rings are for the other side to choose.
func MemifCreate(m Memif, out *Index) *Call {
	req := &memif.MemifCreateV2{
		Role: memif.MEMIF_ROLE_API_MASTER, Mode: memif.MEMIF_MODE_API_ETHERNET,
		RxQueues: 1, TxQueues: 1, SocketID: m.Socket, HwAddr: m.MAC.api(),
	}
	if m.L3 {
		req.Mode = memif.MEMIF_MODE_API_IP
	}
	return newCall(fmt.Sprintf("socket %d", m.Socket), req, func(r *memif.MemifCreateV2Reply) error {
		*out = Index(r.SwIfIndex)
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// MemifDelete removes the interface, and with the last one on a socket the
// socket from its namespace.
func MemifDelete(i Index) *Call {
	req := &memif.MemifDelete{SwIfIndex: i.api()}
	return newCall(i.String(), req, func(r *memif.MemifDeleteReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// Memifs dumps the interfaces of which VPP is the master.
func Memifs(out *[]Memif) *Call {
	return newDump(&memif.MemifDump{}, func(d *memif.MemifDetails) {
		if d.Role == memif.MEMIF_ROLE_API_MASTER {
			*out = append(*out, Memif{
				Index: Index(d.SwIfIndex), Socket: d.SocketID, L3: d.Mode == memif.MEMIF_MODE_API_IP, MAC: MAC(d.HwAddr),
				Connected: d.Flags&interface_types.IF_STATUS_API_FLAG_LINK_UP != 0,
			})
		}
	})
}
