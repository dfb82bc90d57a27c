// Package startup writes VPP's startup configuration.
package startup

import (
	"fmt"
	"hash/fnv"
	"path/filepath"
	"slices"
	"strings"
	"time"
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
	// CPU says where the threads run.
	CPU CPU
	// CoreDumps: a crash leaves a whole image of the process.
	CoreDumps bool
	// Extra is a user's own configuration, merged into ours (see merge).
	Extra string
}

// dpdkPlugin is loaded for a dpdk section alone: it looks at every PCI device
// of the machine.
const dpdkPlugin = "dpdk_plugin.so"

// DefaultPlugins are those that the agent uses (the last three for pods' memifs),
// and ping for people.
func DefaultPlugins() []string {
	return []string{
		"af_packet_plugin.so", "af_xdp_plugin.so", "ping_plugin.so",
		"memif_plugin.so", "acl_plugin.so", "abf_plugin.so",
	}
}

// heartbeat is how often VPP's statistics are brought up to date, by which its
// main thread shows that it lives. It costs some microseconds each time.
const heartbeat = 50 * time.Millisecond

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
	ours := c.sections(page)
	theirs, err := parse(c.Extra)
	if err != nil {
		return "", err
	}
	all, err := merge(ours, theirs)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("# Written by vpp-manager at each start; changes are lost. See --extra.\n")
	render(&b, all)
	return b.String(), nil
}

// sections are ours.
func (c Config) sections(page string) []section {
	st := func(format string, args ...any) statement {
		return statement{words: strings.Fields(fmt.Sprintf(format, args...))}
	}
	unix := []statement{
		st("nodaemon"), st("nosyslog"), st("nobanner"), st("log %s", c.LogFile()),
		st("cli-listen %s", c.CLISocket()), st("runtime-dir %s", c.RunDir),
	}
	if c.CoreDumps {
		unix = append(unix, st("full-coredump"), st("coredump-size unlimited"))
	}
	out := []section{
		{"unix", unix},
		{"api-segment", []statement{st("prefix %s", c.ShmPrefix())}},
		{"socksvr", []statement{st("socket-name %s", c.APISocket())}},
		{"statseg", []statement{
			st("socket-name %s", c.StatsSocket()), st("page-size 4k"), st("update-interval %g", heartbeat.Seconds()),
		}},
		{"memory", []statement{st("main-heap-size %s", c.MainHeap), st("main-heap-page-size %s", page)}},
		{"buffers", []statement{st("buffers-per-numa %d", c.Buffers), st("page-size %s", page)}},
	}
	if cpu := c.CPU.statements(c.Workers); len(cpu) > 0 {
		out = append(out, section{"cpu", cpu})
	}
	// Plugins of VPP's own test client: none. They complain of those below
	// that are off.
	plugin := func(name, what string) statement {
		return statement{words: []string{"plugin", name}, block: []statement{st("%s", what)}}
	}
	plugins := []statement{st("vat-path %s", filepath.Join(c.RunDir, "none")), plugin("default", "disable")}
	for _, p := range c.Plugins {
		plugins = append(plugins, plugin(p, "enable"))
	}
	if c.DPDK != "" && !slices.Contains(c.Plugins, dpdkPlugin) {
		plugins = append(plugins, plugin(dpdkPlugin, "enable"))
	}
	out = append(out, section{"plugins", plugins})
	if c.DPDK != "" {
		// Written by this program: it parses.
		text := c.DPDK
		if !c.HugePages {
			// Else VPP would set huge pages aside by itself, for DPDK.
			text = "no-hugetlb\n" + text
		}
		if dpdk, err := parse("dpdk {\n" + text + "\n}"); err == nil {
			out = append(out, dpdk...)
		}
	}
	return out
}
