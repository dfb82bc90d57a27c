// Package startup writes VPP's startup configuration.
package startup

import (
	"fmt"
	"hash/fnv"
	"path/filepath"
	"slices"
	"strings"
)

// Config is what the configuration depends on.
type Config struct {
	// RunDir is the absolute path of the folder that holds the sockets, the
	// log and the configuration itself.
	RunDir string
	// Workers is the number of threads beside the main one; 0: the main
	// thread forwards.
	Workers int
	// MainHeap in VPP's notation, such as "256M".
	MainHeap string
	// Buffers per NUMA node. Each pod on AF_XDP takes 512 or more.
	Buffers int
	// HugePages: use the system's default huge page size instead of 4 KiB.
	HugePages bool
	// Plugins to load; all others stay off.
	Plugins []string
	// DPDK is the content of a dpdk section, line by line. Empty: there is
	// none, and the plugin stays off.
	DPDK string
	// Extra is appended as it is.
	Extra string
}

// dpdkPlugin is loaded for a dpdk section alone: it looks at every PCI device
// of the machine.
const dpdkPlugin = "dpdk_plugin.so"

// DefaultPlugins are those that the agent uses, and ping for people.
func DefaultPlugins() []string {
	return []string{"af_packet_plugin.so", "af_xdp_plugin.so", "ping_plugin.so"}
}

// Sockets and files in the run directory.
func (c Config) APISocket() string   { return filepath.Join(c.RunDir, "api.sock") }
func (c Config) CLISocket() string   { return filepath.Join(c.RunDir, "cli.sock") }
func (c Config) StatsSocket() string { return filepath.Join(c.RunDir, "stats.sock") }
func (c Config) LogFile() string     { return filepath.Join(c.RunDir, "vpp.log") }
func (c Config) ConfFile() string    { return filepath.Join(c.RunDir, "startup.conf") }
func (c Config) PIDFile() string     { return filepath.Join(c.RunDir, "vpp.pid") }
func (c Config) LockFile() string    { return filepath.Join(c.RunDir, "lock") }

// ShmPrefix begins the names of VPP's shared memory: these are per machine, so
// they are told apart by the run directory.
func (c Config) ShmPrefix() string {
	h := fnv.New64a()
	h.Write([]byte(c.RunDir))
	return fmt.Sprintf("sidewinder-%016x", h.Sum64())
}

// SharedMemory lists the files that VPP makes in /dev/shm, and leaves there
// when it is killed.
func (c Config) SharedMemory() []string {
	p := "/dev/shm/" + c.ShmPrefix()
	return []string{p + "-global_vm", p + "-vpe-api"}
}

// Text is the configuration file. A run directory that cannot be written in it
// is ErrRunDir.
func (c Config) Text() (string, error) {
	if err := CheckRunDir(c.RunDir); err != nil {
		return "", err
	}
	page := "4k"
	if c.HugePages {
		page = "default-hugepage"
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by vpp-manager at each start; changes are lost. See --extra.")
	line("unix {")
	line("  nodaemon")
	line("  nosyslog")
	line("  nobanner")
	line("  log %s", c.LogFile())
	line("  cli-listen %s", c.CLISocket())
	line("  runtime-dir %s", c.RunDir)
	line("}")
	line("api-segment { prefix %s }", c.ShmPrefix())
	line("socksvr { socket-name %s }", c.APISocket())
	line("statseg { socket-name %s page-size 4k }", c.StatsSocket())
	line("memory { main-heap-size %s main-heap-page-size %s }", c.MainHeap, page)
	line("buffers { buffers-per-numa %d page-size %s }", c.Buffers, page)
	if c.Workers > 0 {
		line("cpu { workers %d }", c.Workers)
	}
	line("plugins {")
	// Plugins of VPP's own test client: none. They complain of those below
	// that are off.
	line("  vat-path %s", filepath.Join(c.RunDir, "none"))
	line("  plugin default { disable }")
	for _, p := range c.Plugins {
		line("  plugin %s { enable }", p)
	}
	if c.DPDK != "" && !slices.Contains(c.Plugins, dpdkPlugin) {
		line("  plugin %s { enable }", dpdkPlugin)
	}
	line("}")
	if c.DPDK != "" {
		line("dpdk {")
		for l := range strings.Lines(strings.TrimSpace(c.DPDK)) {
			line("  %s", strings.TrimSpace(l))
		}
		line("}")
	}
	if c.Extra != "" {
		line("%s", strings.TrimRight(c.Extra, "\n"))
	}
	return b.String(), nil
}
