package preflight

import (
	"fmt"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

const smallPage = 4096

// pageSize is that of the pages that VPP will have for heap and buffers.
func (in input) pageSize() uint64 {
	h := startup.ReadHugePages(in.Root)
	if in.fits(h) {
		return h.Size
	}
	return smallPage
}

// bufferStride is how far apart VPP's buffers are: the header of 256 bytes, the
// data, with the dpdk plugin an rte_mbuf of 128, in cache lines, one more where
// their number is even (vlib_buffer_alloc_size).
func (o Options) bufferStride() uint64 {
	n := uint64(o.BufferData) + 256
	if o.uplinksUse(DPDK) {
		n += 128
	}
	return (n+63)&^63 | 64
}

// poolPages is how many pages VPP takes for the buffers of a NUMA node; 0 when
// not even one fits into a page.
func (o Options) poolPages(page uint64) uint64 {
	per := page / o.bufferStride()
	if per == 0 {
		return 0
	}
	return (uint64(o.Buffers)-1)/per + 1
}

func (o Options) poolBytes(page uint64) uint64 { return o.poolPages(page) * page }

// poolBuffers is about how many buffers VPP really has on a NUMA node: it lays
// them end to end over the pages and leaves out those that cross from one page
// into the next (vlib_buffer_pool_create). With pages of 4 KiB and buffers of
// 2048 bytes that is 73 of 100 that were asked for; measured, 5978 of 8192.
func (o Options) poolBuffers(page uint64) int {
	stride := o.bufferStride()
	if stride >= page {
		return 0
	}
	return int(o.poolPages(page) * (page - stride) / stride)
}

// Buffers that an interface holds in its rings: VPP's af_xdp fills a ring of
// 512 for each queue, and as many may wait to be sent; dpdk fills rings of 1024;
// af_packet copies.
const (
	ringAFXDP = 512
	ringDPDK  = 1024
	// inFlight is for packets inside VPP, for each thread.
	inFlight = 2048
)

// buffersOfRun is how many run asks for by itself.
func (in input) buffersOfRun() int {
	rings := startup.Rings{Pods: in.MaxPods, UplinkRing: in.Ring, Threads: in.Workers + 1}
	links, _ := in.uplinks()
	for _, l := range links {
		rings.UplinkQueues += max(1, l.Queues)
	}
	return rings.Buffers()
}

func ring(d Driver) int {
	switch d {
	case AFXDP:
		return ringAFXDP
	case DPDK:
		return ringDPDK
	}
	return 0
}

// buffersNeeded is how many buffers are in rings when VPP is full: those of
// receive rings are always taken, those of the uplinks' send rings under load.
func buffersNeeded(o Options, uplinks []Link) (always, load int) {
	perPod := ring(o.PodDriver)
	if o.PodDriver == AFXDP {
		perPod = binapi.AFXDPPodRing
	}
	always = o.MaxPods * perPod
	sending := 0
	for _, l := range uplinks {
		n := ring(l.Use)
		if l.Use == AFXDP && o.Ring > 0 {
			n = o.Ring
		}
		always += max(1, l.Queues) * n
		sending += max(1, l.Queues) * n
	}
	return always, always + sending + inFlight*(1+o.Workers)
}

// buffers: when there are none left, VPP still makes an af_xdp interface, which
// then receives nothing.
func buffers(in input) Finding {
	links, _ := in.uplinks()
	page := in.pageSize()
	have := in.poolBuffers(page)
	always, load := buffersNeeded(in.Options, links)
	what := fmt.Sprintf("%d, of %d asked for, fit into pages of %s%s", have, in.Buffers, bytesText(page), in.runsAlready())
	want := in.Options
	for want.poolBuffers(page) < load && want.Buffers < 1<<24 {
		want.Buffers += 4096 - want.Buffers%4096
	}
	fix := fmt.Sprintf("--buffers %d (%s for each NUMA node), or fewer pods (--max-pods)", want.Buffers, bytesText(want.poolBytes(page)))
	if page == smallPage {
		fix += "; with huge pages nearly all of them fit"
	}
	switch {
	case have == 0:
		return failure("huge pages, or smaller buffers", "buffers of %d bytes do not fit into pages of %s", in.BufferData, bytesText(page))
	case have < always:
		return failure(fix, "%s; the rings of %d pods and the uplinks take %d: the last pods would receive nothing", what, in.MaxPods, always)
	case have < load:
		return warning(fix, "%s; the rings of %d pods and the uplinks take %d, and under load %d", what, in.MaxPods, always, load)
	}
	return ok("%s; %d pods and the uplinks take %d, and under load %d", what, in.MaxPods, always, load)
}
