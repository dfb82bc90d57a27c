package preflight

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

func meminfo(total, free int) map[string]string {
	return map[string]string{
		"proc/meminfo":                          fmt.Sprintf("MemAvailable: 8000000 kB\nHugePages_Total: %d\nHugePages_Free: %d\nHugePages_Rsvd: 0\nHugepagesize: 2048 kB\n", total, free),
		"sys/devices/system/node/node0/meminfo": fmt.Sprintf("Node 0 MemTotal: 9000000 kB\nNode 0 HugePages_Free: %d\n", free),
	}
}

// TestFitsAsRunDoes: the verdict is the decision that run makes.
func TestFitsAsRunDoes(t *testing.T) {
	for _, h := range []startup.HugePages{
		{},
		{Size: 2 << 20, Free: 167, Nodes: []uint64{167}},
		{Size: 2 << 20, Free: 166, Nodes: []uint64{166}},
		{Size: 2 << 20, Free: 206, Nodes: []uint64{167, 39}},
		{Size: 2 << 20, Free: 206, Nodes: []uint64{168, 38}},
		{Size: 2 << 20, Free: 4096, Nodes: []uint64{4096, 0}},
		{Size: 1 << 30, Free: 2, Nodes: []uint64{2}},
		{Size: 1 << 30, Free: 1, Nodes: []uint64{1}},
	} {
		o := DefaultOptions()
		o.Buffers = 32768
		conf := startup.Config{MainHeap: o.MainHeap, Buffers: o.Buffers}
		require.Equal(t, conf.FitsHugePages(h), o.fits(h), "%+v", h)
	}
}

func TestHugePages(t *testing.T) {
	o := goodOptions()
	o.Buffers = 32768
	expect(t, "huge-pages", goodMachine(t, nil), o, OK, "1024 free, 167 needed: 128 for the heap and 39 for the buffers of each NUMA node (1), of 2 MiB each")
	expect(t, "huge-pages", goodMachine(t, meminfo(500, 100)), o, Warning, "sysctl -w vm.nr_hugepages=567")
	expect(t, "huge-pages", goodMachine(t, map[string]string{"proc/meminfo": "MemAvailable: 1 kB\n"}), o, Warning, "the kernel has none")

	two := meminfo(1024, 1024)
	two["sys/devices/system/node/node1/meminfo"] = "Node 1 MemTotal: 9000000 kB\nNode 1 HugePages_Free: 12\n"
	expect(t, "huge-pages", goodMachine(t, two), o, Warning, "on NUMA node 1 only 12")
	expect(t, "huge-pages", goodMachine(t, two), o, Warning, "node1/hugepages/hugepages-2048kB")

	o.Driver = DPDK
	expect(t, "huge-pages", goodMachine(t, meminfo(0, 0)), o, Failure, "DPDK cannot drive a NIC")
	virtual := goodLink()
	virtual.PCI = ""
	expect(t, "huge-pages", goodMachine(t, meminfo(0, 0), virtual), o, Warning, "pages of 4 KiB")
}

// TestPoolBuffers compares with VPP 25.10's `show buffers`.
func TestPoolBuffers(t *testing.T) {
	for _, tc := range []struct {
		asked int
		page  uint64
		have  int
	}{
		{8192, smallPage, 5978},
		{32768, smallPage, 23914},
	} {
		o := DefaultOptions()
		o.Buffers = tc.asked
		require.InEpsilon(t, tc.have, o.poolBuffers(tc.page), 0.005, "%+v", tc)
	}
	o := DefaultOptions()
	o.Buffers = 32768
	require.GreaterOrEqual(t, o.poolBuffers(2<<20), o.Buffers-64)
	o.BufferData = 4000
	require.Zero(t, o.poolBuffers(smallPage))
}

func TestBuffers(t *testing.T) {
	small := goodMachine(t, meminfo(0, 0))
	o := goodOptions()
	o.Buffers = 32768
	expect(t, "buffers", small, o, Failure, "the last pods would receive nothing")
	expect(t, "buffers", small, o, Failure, "--buffers 45056")
	o.Buffers = 45056
	expect(t, "buffers", small, o, OK, "110 pods and the uplinks take 28672")
	o.Buffers = 41000
	expect(t, "buffers", small, o, Warning, "under load")
	o.Buffers, o.MaxPods = 32768, 40
	expect(t, "buffers", small, o, OK, "40 pods")
	o.BufferData = 4000
	expect(t, "buffers", small, o, Failure, "do not fit into pages of 4 KiB")
	o = goodOptions()
	o.Buffers = 0
	expect(t, "buffers", goodMachine(t, nil), o, OK, fmt.Sprintf("of %d asked for", startup.Rings{Pods: 110, UplinkQueues: 1, Threads: 1}.Buffers()))
	o.Buffers, o.PodDriver = 4096, AFPacket
	expect(t, "buffers", goodMachine(t, nil), o, OK, "")
}

func TestMemory(t *testing.T) {
	o := goodOptions()
	expect(t, "memory", goodMachine(t, nil), o, OK, "VPP takes up to 150 MiB")
	small := meminfo(0, 0)
	expect(t, "memory", goodMachine(t, small), o, OK, "VPP takes up to 918 MiB")
	small["sys/fs/cgroup/system.slice/vpp.service/memory.max"] = "536870912\n"
	small["sys/fs/cgroup/system.slice/vpp.service/memory.current"] = "10485760\n"
	expect(t, "memory", goodMachine(t, small), o, Warning, "502 MiB left in this control group")
	small["sys/fs/cgroup/system.slice/vpp.service/memory.max"] = "max\n"
	expect(t, "memory", goodMachine(t, small), o, OK, "available")
	expect(t, "memory", goodMachine(t, map[string]string{"proc/meminfo": ""}), o, Skipped, "")
}

// TestMemoryOfARunningVPP: what it has taken is not free, and the text says so.
func TestMemoryOfARunningVPP(t *testing.T) {
	const text = "VPP runs, process 77: what it holds does not count as free"
	files := meminfo(500, 100)
	files["proc/77/comm"], files["proc/77/ns/net"] = "vpp_main\n", "-> net:[1]"
	files["proc/77/cmdline"] = "/usr/bin/vpp\x00-c\x00/run/vpp/startup.conf\x00"
	o := goodOptions()
	m := goodMachine(t, files)
	expect(t, "huge-pages", m, o, Warning, text)
	expect(t, "buffers", m, o, OK, text)
	expect(t, "memory", m, o, OK, text)
	o.RunDir = "/run/other"
	for _, name := range []string{"huge-pages", "buffers", "memory"} {
		for _, res := range result(t, name, m, o) {
			require.NotContains(t, res.Found, "VPP runs", "another's run directory")
		}
	}
}

func TestSharedMemory(t *testing.T) {
	o := goodOptions()
	m := goodMachine(t, nil)
	expect(t, "shared-memory", m, o, OK, "1024 MiB free")
	m.Space = func(string) (uint64, uint64, bool, error) { return 64 << 20, 64 << 20, false, nil }
	expect(t, "shared-memory", m, o, Warning, "64 MiB free of 64 MiB")
	m.Space = func(string) (uint64, uint64, bool, error) { return 64 << 20, 1 << 10, false, nil }
	expect(t, "shared-memory", m, o, Failure, "1 KiB free")
	m.Space = func(string) (uint64, uint64, bool, error) { return 1 << 30, 1 << 30, true, nil }
	expect(t, "shared-memory", m, o, Failure, "read-only")
	m.Space = func(string) (uint64, uint64, bool, error) { return 0, 0, false, errTest }
	expect(t, "shared-memory", m, o, Failure, errTest.Error())
}

func TestFileDescriptors(t *testing.T) {
	o := goodOptions()
	none := map[string]string{"proc/self/status": "CapEff:\t0000000000000000\n"}
	m := goodMachine(t, none)
	m.Rlimit = func(which int) (uint64, uint64, error) {
		require.Equal(t, unix.RLIMIT_NOFILE, which)
		return 1024, 1024, nil
	}
	expect(t, "file-descriptors", m, o, OK, "at most 1024, VPP with 110 pods takes up to 952")
	o.MaxPods = 250
	expect(t, "file-descriptors", m, o, Failure, "takes up to 2072")
	m.Root = goodMachine(t, nil).Root
	expect(t, "file-descriptors", m, o, OK, "CAP_SYS_RESOURCE")
}
