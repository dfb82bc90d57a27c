package startup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

func TestReadHugePages(t *testing.T) {
	write := func(root, file, text string) {
		path := filepath.Join(root, file)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	root := t.TempDir()
	require.False(t, Config{MainHeap: "1M", Buffers: 1}.FitsHugePages(ReadHugePages(root)), "nothing to read")

	write(root, "proc/meminfo", "MemTotal: 1 kB\nHugePages_Total: 900\nHugePages_Free:  512\nHugePages_Rsvd:  12\nHugepagesize: 2048 kB\n")
	require.Equal(t, HugePages{Size: 2 * mib, Free: 500, Nodes: []uint64{500}}, ReadHugePages(root), "a kernel without NUMA")

	node := "sys/devices/system/node/"
	write(root, node+"node0/meminfo", "Node 0 MemTotal:       4028808 kB\nNode 0 HugePages_Total:   600\nNode 0 HugePages_Free:    400\n")
	write(root, node+"node1/meminfo", "Node 1 MemTotal:       4028808 kB\nNode 1 HugePages_Total:   300\nNode 1 HugePages_Free:    112\n")
	write(root, node+"node2/meminfo", "Node 2 MemTotal:       0 kB\nNode 2 HugePages_Total:   0\nNode 2 HugePages_Free:    0\n")
	require.Equal(t, HugePages{Size: 2 * mib, Free: 500, Nodes: []uint64{400, 112}}, ReadHugePages(root), "a node without memory has no buffers")
}

func TestReadHugePagesOfThisMachine(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/hugepages"); err != nil {
		t.Skip("the kernel has no huge pages")
	}
	h := ReadHugePages("/")
	require.NotZero(t, h.Size)
	require.NotEmpty(t, h.Nodes)
}

func TestFitsHugePages(t *testing.T) {
	// A page of 2 MiB holds 862 buffers: 39 pages for 32768.
	c := Config{MainHeap: "256M", Buffers: 32768}
	for name, tc := range map[string]struct {
		conf Config
		h    HugePages
		want bool
	}{
		"just enough":               {c, HugePages{2 * mib, 128 + 39, []uint64{167}}, true},
		"one page less":             {c, HugePages{2 * mib, 128 + 38, []uint64{166}}, false},
		"heap alone":                {c, HugePages{2 * mib, 128, []uint64{128}}, false},
		"two nodes":                 {c, HugePages{2 * mib, 128 + 2*39, []uint64{128, 78}}, true},
		"two nodes, buffers once":   {c, HugePages{2 * mib, 128 + 39, []uint64{128, 39}}, false},
		"one node has none":         {c, HugePages{2 * mib, 4096, []uint64{4096, 0}}, false},
		"1G pages: one each":        {c, HugePages{gib, 2, []uint64{2}}, true},
		"1G pages: not both in one": {c, HugePages{gib, 1, []uint64{1}}, false},
		"a heap of a page and a bit": {Config{MainHeap: "2049k", Buffers: 1},
			HugePages{2 * mib, 2, []uint64{2}}, false},
		"no huge pages": {c, HugePages{}, false},
		"no heap":       {Config{Buffers: 1}, HugePages{2 * mib, 512, []uint64{512}}, false},
	} {
		require.Equal(t, tc.want, tc.conf.FitsHugePages(tc.h), name)
	}
}
