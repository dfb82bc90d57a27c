package preflight

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
)

// files makes a root with these files. A content that begins with "-> " makes a
// symbolic link; a name that ends in / a folder.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range content {
		path := filepath.Join(root, name)
		if strings.HasSuffix(name, "/") {
			require.NoError(t, os.MkdirAll(path, 0o755))
			continue
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if to, isLink := strings.CutPrefix(text, "-> "); isLink {
			require.NoError(t, os.Symlink(to, path))
			continue
		}
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return root
}

// goodFiles are those of a machine on which nothing is wrong.
func goodFiles() map[string]string {
	return map[string]string{
		"proc/sys/kernel/osrelease":                   "6.12.9-200.fc41.x86_64\n",
		"proc/self/status":                            "Name:\tvpp-manager\nCapEff:\t000001ffffffffff\nCpus_allowed_list:\t0-7\n",
		"proc/self/uid_map":                           "         0          0 4294967295\n",
		"proc/self/ns/net":                            "-> net:[1]",
		"proc/self/ns/pid":                            "-> pid:[4026531836]",
		"proc/self/cgroup":                            "0::/system.slice/vpp.service\n",
		"proc/meminfo":                                "MemAvailable: 8000000 kB\nHugePages_Total: 1024\nHugePages_Free: 1024\nHugePages_Rsvd: 0\nHugepagesize: 2048 kB\n",
		"proc/cpuinfo":                                "processor\t: 0\nflags\t\t: fpu tsc constant_tsc nonstop_tsc\n",
		"proc/mounts":                                 "bpf /sys/fs/bpf bpf rw 0 0\n",
		"proc/sys/net/ipv6/seg6_flowlabel":            "1\n",
		"proc/sys/net/ipv6/conf/all/disable_ipv6":     "0\n",
		"proc/sys/net/ipv6/conf/default/disable_ipv6": "0\n",
		"proc/sys/net/ipv6/conf/all/forwarding":       "1\n",
		"proc/sys/net/ipv4/ip_forward":                "1\n",
		"sys/kernel/btf/vmlinux":                      "",
		"sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
		"sys/devices/system/cpu/isolated":                                 "4-7\n",
		"sys/devices/system/cpu/smt/active":                               "0\n",
		"sys/devices/system/node/node0/meminfo":                           "Node 0 MemTotal: 9000000 kB\nNode 0 HugePages_Free: 1024\n",
		"dev/shm/":                                                        "",
		"dev/vhost-net":                                                   "",
		"dev/vfio/vfio":                                                   "",
		"sys/bus/pci/drivers/vfio-pci/":                                   "",
		"sys/kernel/iommu_groups/7/":                                      "",
		"sys/bus/pci/devices/0000:03:00.0/iommu_group":                    "-> ../../../../kernel/iommu_groups/7",
		"run/": "",
	}
}

func goodLink() Link {
	return Link{
		Name: "eth0", Index: 2, Kind: "device", MTU: 1500, Up: true, Driver: "ice", PCI: "0000:03:00.0",
		Queues: 1, MaxQueues: 8, Native: true, ZeroCopy: true, Told: true,
	}
}

// goodMachine has nothing wrong; change, where given, makes it worse.
func goodMachine(t *testing.T, change map[string]string, uplinks ...Link) Machine {
	t.Helper()
	all := goodFiles()
	for name, text := range change {
		if text == "gone" {
			delete(all, name)
			continue
		}
		all[name] = text
	}
	if uplinks == nil {
		uplinks = []Link{goodLink()}
	}
	return Machine{
		Root:  files(t, all),
		Links: func() ([]Link, error) { return uplinks, nil },
		Defaults: func() ([]string, error) {
			var names []string
			for _, l := range uplinks {
				names = append(names, l.Name)
			}
			return names, nil
		},
		Try:    func(context.Context) Features { return Features{} },
		Guard:  func() error { return nil },
		Locate: func(string) (find.VPP, error) { return find.VPP{Path: "/usr/bin/vpp", From: "PATH"}, nil },
		Find: func(context.Context, string, ...binapi.Group) (find.VPP, error) {
			return find.VPP{Path: "/usr/bin/vpp", From: "PATH", Version: "25.10-release"}, nil
		},
		Installed: func(_ string, plugins []string) []string { return plugins },
		Rlimit:    func(int) (uint64, uint64, error) { return unix.RLIM_INFINITY, unix.RLIM_INFINITY, nil },
		Space:     func(string) (uint64, uint64, bool, error) { return 1 << 30, 1 << 30, false, nil },
	}
}

// goodOptions fit goodMachine.
func goodOptions() Options {
	o := DefaultOptions()
	o.Buffers = 131072
	return o
}

// result makes one check.
func result(t *testing.T, name string, m Machine, o Options) []Result {
	t.Helper()
	r := run(context.Background(), m, o, false, func(c check) bool { return c.name == name })
	require.NotEmpty(t, r.Results, "no check %s", name)
	return r.Results
}

// expect makes one check and compares verdict and text.
func expect(t *testing.T, name string, m Machine, o Options, want Verdict, text string) {
	t.Helper()
	results := result(t, name, m, o)
	require.Len(t, results, 1, "%v", results)
	got := results[0]
	require.Equal(t, want, got.Verdict, "%s", got)
	require.Contains(t, got.String(), text)
	if want == Warning || want == Failure {
		require.NotEmpty(t, got.Fix, "%s says how to fix it", name)
	}
}

var errTest = errors.New("the test's own")
