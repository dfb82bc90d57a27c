package preflight

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

// bufferOverhead is what a buffer takes beside its data, as run counts when it
// chooses the size of pages: vlib_buffer_t with its room for headers, DPDK's
// header, and what VPP adds for an odd number of cache lines.
const bufferOverhead = 256 + 128

func (o Options) bufferBytes() uint64 { return uint64(o.BufferData) + bufferOverhead }

func (o Options) heapBytes() uint64 {
	n, _ := startup.ParseSize(o.MainHeap)
	return n
}

// pagesFor is how many pages of this size n things of size each take, none of
// which crosses from one page into the next.
func pagesFor(n, each, page uint64) uint64 {
	per := page / each
	if per == 0 || n == 0 {
		return 0
	}
	return (n-1)/per + 1
}

// hugeNeed is how many huge pages the heap takes, and the buffers of each node.
func (o Options) hugeNeed(h startup.HugePages) (heap, perNode uint64) {
	return (o.heapBytes() + h.Size - 1) / h.Size, pagesFor(uint64(o.Buffers), o.bufferBytes(), h.Size)
}

// fits reports whether VPP will use huge pages: run's own rule, for any size of
// buffers.
func (o Options) fits(h startup.HugePages) bool {
	if h.Size < o.bufferBytes() || len(h.Nodes) == 0 {
		return false
	}
	heap, perNode := o.hugeNeed(h)
	for _, free := range h.Nodes {
		if free < perNode {
			return false
		}
	}
	return h.Free >= heap+perNode*uint64(len(h.Nodes))
}

// hugePages compares the free huge pages with what heap (on one node) and
// buffers (on each node) take.
func hugePages(in input) Finding {
	h := startup.ReadHugePages(in.Root)
	if h.Size < in.bufferBytes() {
		return in.noHugePages("use a kernel with CONFIG_HUGETLBFS", "the kernel has none")
	}
	heap, perNode := in.hugeNeed(h)
	need := heap + perNode*uint64(len(h.Nodes))
	what := fmt.Sprintf("%d for the heap and %d for the buffers of each NUMA node (%d), of %s each%s", heap, perNode, len(h.Nodes), bytesText(h.Size), in.runsAlready())
	if in.fits(h) {
		return ok("%d free, %d needed: %s", h.Free, need, what)
	}
	if h.Free < need {
		total := need + in.otherHugePages()
		return in.noHugePages(fmt.Sprintf("sysctl -w vm.nr_hugepages=%d, in /etc/sysctl.d to keep it; where memory is in pieces already, hugepages=%d on the kernel's command line", total, total),
			"%d free, %d needed: %s", h.Free, need, what)
	}
	for node, free := range h.Nodes {
		if free < perNode {
			return in.noHugePages(fmt.Sprintf("write %d or more to nr_hugepages in /sys/devices/system/node/node%d/hugepages/hugepages-%dkB, early after boot", heap+perNode, node, h.Size>>10),
				"%d free, but on NUMA node %d only %d: %s", h.Free, node, free, what)
		}
	}
	return in.noHugePages("see the free pages of each node", "%d free, %d needed: %s", h.Free, need, what)
}

// otherHugePages are those that others have taken.
func (in input) otherHugePages() uint64 {
	total, _ := strconv.ParseUint(strings.Fields(in.field("proc/meminfo", "HugePages_Total") + " 0")[0], 10, 64)
	free, _ := strconv.ParseUint(strings.Fields(in.field("proc/meminfo", "HugePages_Free") + " 0")[0], 10, 64)
	return total - min(total, free)
}

// noHugePages: VPP runs on pages of 4 KiB instead, but a NIC that it drives
// itself needs memory in one piece.
func (in input) noHugePages(fix, format string, args ...any) Finding {
	text := fmt.Sprintf(format, args...)
	if in.physicalNIC() {
		return failure(fix, "%s; DPDK cannot drive a NIC without", text)
	}
	return warning(fix, "%s; VPP will use pages of 4 KiB, which costs speed and nothing else", text)
}

// physicalNIC reports whether DPDK drives the NIC of an uplink.
func (in input) physicalNIC() bool {
	links, _ := in.uplinks()
	for _, l := range links {
		if l.Use == DPDK && l.PCI != "" && !l.Virtual {
			return true
		}
	}
	return false
}
