package startup

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// HugePages are a machine's free huge pages of the default size.
type HugePages struct {
	// Size of a page in bytes; 0 when the kernel has none.
	Size uint64
	// Free pages that are not promised to somebody.
	Free uint64
	// Nodes has the free pages of each NUMA node that has memory.
	Nodes []uint64
}

// ReadHugePages reads what the kernel says, in proc and sys below root ("/",
// but for tests). What cannot be read counts as none.
func ReadHugePages(root string) HugePages {
	m := meminfo(filepath.Join(root, "proc/meminfo"))
	h := HugePages{Size: m["Hugepagesize:"] * 1024, Free: m["HugePages_Free:"]}
	// Reserved pages are free, yet others have mapped them.
	h.Free -= min(h.Free, m["HugePages_Rsvd:"])
	files, _ := filepath.Glob(filepath.Join(root, "sys/devices/system/node/node[0-9]*/meminfo"))
	for _, f := range files {
		if n := meminfo(f); n["MemTotal:"] > 0 {
			h.Nodes = append(h.Nodes, n["HugePages_Free:"])
		}
	}
	if len(h.Nodes) == 0 { // a kernel without NUMA
		h.Nodes = []uint64{h.Free}
	}
	return h
}

// meminfo reads /proc/meminfo or a node's, where "Node 0" comes first.
func meminfo(path string) map[string]uint64 {
	out := map[string]uint64{}
	f, err := os.Open(path)
	if err != nil {
		return out
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		w := strings.Fields(sc.Text())
		if len(w) > 2 && w[0] == "Node" {
			w = w[2:]
		}
		if len(w) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(w[1], 10, 64); err == nil {
			out[w[0]] = n
		}
	}
	return out
}

// bufferBytes is what a packet buffer takes: 2048 bytes of data, its header,
// and what VPP adds for an odd number of cache lines.
const bufferBytes = 2048 + 256 + 128

// FitsHugePages reports whether the free huge pages hold the heap, and on each
// NUMA node that node's buffers. Each part takes whole pages, and VPP lets no
// buffer cross from one page into the next.
func (c Config) FitsHugePages(h HugePages) bool {
	heap, ok := ParseSize(c.MainHeap)
	if !ok || c.Buffers <= 0 || h.Size < bufferBytes || len(h.Nodes) == 0 {
		return false
	}
	buffers := pages(uint64(c.Buffers), h.Size/bufferBytes)
	for _, free := range h.Nodes {
		if free < buffers {
			return false
		}
	}
	return h.Free >= pages(heap, h.Size)+uint64(len(h.Nodes))*buffers
}

// pages is how many pages n things take, at most per on each; no overflow.
func pages(n, per uint64) uint64 { return (n-1)/per + 1 }
