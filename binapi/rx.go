package binapi

import (
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
)

// RxMode is when VPP looks for packets on a queue.
type RxMode uint32

// The modes.
const (
	// RxPolling: always.
	RxPolling = RxMode(interface_types.RX_MODE_API_POLLING)
	// RxInterrupt: VPP sleeps until packets come in.
	RxInterrupt = RxMode(interface_types.RX_MODE_API_INTERRUPT)
	// RxAdaptive: polling while there is much, interrupt otherwise.
	RxAdaptive = RxMode(interface_types.RX_MODE_API_ADAPTIVE)
)

func (m RxMode) String() string { return interface_types.RxMode(m).String() }

// InterfaceSetRxMode sets the mode of all queues of an interface. VPP refuses
// one that the driver does not have.
func InterfaceSetRxMode(i Index, m RxMode) *Call {
	req := &interfaces.SwInterfaceSetRxMode{SwIfIndex: i.api(), Mode: interface_types.RxMode(m)}
	return newCall(i.String()+" "+m.String(), req, func(r *interfaces.SwInterfaceSetRxModeReply) error {
		return retvalError(req.GetMessageName(), r.Retval, nil)
	})
}

// RxQueue is a queue that VPP receives from.
type RxQueue struct {
	Interface Index
	Queue     uint32
	// Worker that serves it, counted from 0; 0 also where the main thread does.
	Worker uint32
	Mode   RxMode
}

// RxQueues dumps the queues of all interfaces.
func RxQueues(out *[]RxQueue) *Call {
	return newDump(&interfaces.SwInterfaceRxPlacementDump{SwIfIndex: NoInterface.api()}, func(d *interfaces.SwInterfaceRxPlacementDetails) {
		*out = append(*out, RxQueue{Interface: Index(d.SwIfIndex), Queue: d.QueueID, Worker: d.WorkerID, Mode: RxMode(d.Mode)})
	})
}
