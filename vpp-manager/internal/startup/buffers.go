package startup

import "github.com/sidewinder-net/sidewinder/binapi"

// Rings are the AF_XDP rings that hold packet buffers.
type Rings struct {
	// Pods with one queue each.
	Pods int
	// UplinkQueues of all uplinks together.
	UplinkQueues int
	// PodRing and UplinkRing are the sizes of a queue's receive ring and of its
	// transmit ring. 0: the agent's default for pods, VPP's for uplinks.
	PodRing, UplinkRing int
	// Threads of VPP: each keeps some buffers at hand.
	Threads int
}

const (
	// defaultRing is VPP's for AF_XDP: 2 * VLIB_FRAME_SIZE.
	defaultRing = 512
	// threadBuffers a thread has at hand or in flight: its cache (512), and
	// some frames of 256.
	threadBuffers = 4096
	// baseBuffers are for what is not AF_XDP, and for what comes later.
	baseBuffers = 4096
)

// Buffers is how many packet buffers VPP needs. A receive ring is kept full all
// the time. What a transmit ring has sent is taken back at the next sending, so
// a quarter of the pods' may be full at any time, and all of the uplinks'.
func (r Rings) Buffers() int {
	pod, uplink := r.PodRing, r.UplinkRing
	if pod <= 0 {
		pod = binapi.AFXDPPodRing
	}
	if uplink <= 0 {
		uplink = defaultRing
	}
	return baseBuffers + threadBuffers*max(r.Threads, 1) + r.Pods*(pod+pod/4) + r.UplinkQueues*2*uplink
}
