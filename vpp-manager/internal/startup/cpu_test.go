package startup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/binapi"
	"k8s.io/utils/cpuset"
)

func cpus(t *testing.T, list string) cpuset.CPUSet {
	t.Helper()
	s, err := ParseCPUs(list)
	require.NoError(t, err)
	return s
}

func TestChooseCPU(t *testing.T) {
	for name, tc := range map[string]struct {
		allowed, isolated, near string
		wish                    CPUWish
		main, workers           string // workers "": none; main "": not pinned
		float                   string
		err                     string
	}{
		"one thread floats":                         {allowed: "0-3", wish: CPUWish{Main: -1}, float: "0-3"},
		"it floats near the NIC":                    {allowed: "0-7", near: "4-7", wish: CPUWish{Main: -1}, float: "4-7"},
		"and not on isolated ones":                  {allowed: "0-7", isolated: "4-7", near: "4-7", wish: CPUWish{Main: -1}, float: "0-3"},
		"unless there are no others":                {allowed: "4-7", isolated: "4-7", wish: CPUWish{Main: -1}, float: "4-7"},
		"two CPUs":                                  {allowed: "0-1", wish: CPUWish{Workers: 1, Main: -1}, float: "0-1"},
		"two CPUs, asked for":                       {allowed: "0-1", wish: CPUWish{Workers: 1, Main: 0}, main: "0", workers: "1"},
		"workers":                                   {allowed: "0-3", wish: CPUWish{Workers: 2, Main: -1}, main: "1", workers: "2-3"},
		"all of them":                               {allowed: "0-3", wish: CPUWish{Workers: 3, Main: -1}, main: "1", workers: "0,2-3"},
		"isolated ones for workers":                 {allowed: "0-7", isolated: "4-5", wish: CPUWish{Workers: 2, Main: -1}, main: "1", workers: "4-5"},
		"isolated and near before isolated and far": {allowed: "0-7", isolated: "2,6", near: "4-7", wish: CPUWish{Workers: 1, Main: -1}, main: "4", workers: "6"},
		"then isolated and far, then near":          {allowed: "0-7", isolated: "2,6", near: "4-7", wish: CPUWish{Workers: 3, Main: -1}, main: "4", workers: "2,5-6"},
		"in a cpuset":                               {allowed: "8-11", isolated: "0-3", near: "0-7", wish: CPUWish{Workers: 1, Main: -1}, main: "8", workers: "9"},
		"the main one was chosen":                   {allowed: "0-3", wish: CPUWish{Workers: 1, Main: 3}, main: "3", workers: "1"},
		"the main one alone":                        {allowed: "0-3", wish: CPUWish{Main: 2}, main: "2"},
		"workers' were chosen":                      {allowed: "0-3", wish: CPUWish{Main: -1, Cores: cpuset.New(1, 3)}, main: "2", workers: "1,3"},
		"as many as were chosen":                    {allowed: "0-3", wish: CPUWish{Workers: 2, Main: -1, Cores: cpuset.New(1, 3)}, main: "2", workers: "1,3"},

		"too many":                    {allowed: "0-3", wish: CPUWish{Workers: 4, Main: -1}, err: "need 5 CPUs, this process may use 4 (0-3)"},
		"the numbers differ":          {allowed: "0-3", wish: CPUWish{Workers: 1, Main: -1, Cores: cpuset.New(1, 3)}, err: "1 workers on the 2 CPUs 1,3"},
		"a worker's is not allowed":   {allowed: "0-3", wish: CPUWish{Main: -1, Cores: cpuset.New(3, 4)}, err: "workers on CPU 4"},
		"the main one is not allowed": {allowed: "0-3", wish: CPUWish{Main: 9}, err: "main thread on CPU 9"},
		"asked for twice":             {allowed: "0-3", wish: CPUWish{Main: 1, Cores: cpuset.New(1)}, err: "CPU 1 is asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			got, n, err := ChooseCPU(CPUs{Allowed: cpus(t, tc.allowed), Isolated: cpus(t, tc.isolated), Near: cpus(t, tc.near)}, tc.wish)
			if tc.err != "" {
				require.ErrorIs(t, err, ErrCPU)
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.main != "", got.Pin)
			if !got.Pin {
				require.Equal(t, tc.float, got.Float.String())
				require.Equal(t, tc.wish.Workers, n)
				return
			}
			require.Equal(t, tc.main, cpuset.New(got.Main).String())
			require.Equal(t, tc.workers, got.Workers.String())
			require.Equal(t, got.Workers.Size(), n)
			require.False(t, got.Workers.Contains(got.Main))
		})
	}
}

func TestPinned(t *testing.T) {
	require.False(t, Config{}.Pinned())
	require.True(t, Config{Workers: 1}.Pinned())
	require.True(t, Config{CPU: CPU{Pin: true}}.Pinned())
	require.True(t, Config{Extra: "cpu { main-core 1 }"}.Pinned())
	require.False(t, Config{Extra: "cpu { scheduler-policy fifo }"}.Pinned())
	text, err := Config{RunDir: "/run/vpp", MainHeap: "1G", Buffers: 2048, CPU: CPU{Pin: true, Main: 1, Workers: cpuset.New(2, 3)}, Workers: 2}.Text()
	require.NoError(t, err)
	require.Contains(t, text, "cpu { main-core 1 corelist-workers 2-3 }")
}

func TestReadCPUs(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"sys/devices/system/cpu/isolated":            "2-3\n",
		"sys/class/net/eth0/device/local_cpulist":    "0-1\n",
		"sys/class/net/eth1/device/local_cpulist":    "8-9\n",
		"sys/class/net/eth0/queues/rx-0/rps_cpus":    "0\n",
		"sys/class/net/eth0/queues/rx-1/rps_cpus":    "0\n",
		"sys/class/net/eth0/queues/tx-0/xps_cpus":    "0\n",
		"sys/class/net/broken/device/local_cpulist":  "x\n",
		"sys/class/net/virtual/queues/rx-0/rps_flow": "0\n",
	} {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	c, err := ReadCPUs(root, []string{"eth0", "eth1", "virtual", "broken", "none"})
	require.NoError(t, err)
	require.Equal(t, "2-3", c.Isolated.String())
	require.Equal(t, "0-1,8-9", c.Near.String())
	require.False(t, c.Allowed.IsEmpty())
	require.Equal(t, 2, ReceiveQueues(root, "eth0"))
	require.Equal(t, 0, ReceiveQueues(root, "none"))
}

func TestBuffers(t *testing.T) {
	one := Rings{}.Buffers()
	require.GreaterOrEqual(t, one, 4096)
	// Each pod takes a full receive ring at least.
	require.GreaterOrEqual(t, Rings{Pods: 110}.Buffers(), 110*binapi.AFXDPPodRing+one)
	require.Equal(t, 2*2*4096, Rings{UplinkQueues: 2, UplinkRing: 4096}.Buffers()-one)
	require.Greater(t, Rings{Threads: 3}.Buffers(), Rings{Threads: 1}.Buffers())
	require.Greater(t, Rings{Pods: 1, PodRing: 1024}.Buffers(), Rings{Pods: 1}.Buffers())
}
