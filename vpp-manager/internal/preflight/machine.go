package preflight

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

// Machine is what the checks look at.
type Machine struct {
	// Root is where proc, sys, dev, run and etc are.
	Root string
	// Links are the interfaces of this network namespace, and Defaults the
	// names of those with the default IPv6 route.
	Links    func() ([]Link, error)
	Defaults func() ([]string, error)
	// Try tells what the kernel can do.
	Try func(ctx context.Context) Features
	// Guard tries what turns the traffic to the kernel in the moment in which
	// VPP dies.
	Guard func() error
	// Locate and Find are those of package find; Installed keeps the plugins
	// that lie beside the VPP at path.
	Locate    func(explicit string) (find.VPP, error)
	Find      func(ctx context.Context, explicit string, require ...binapi.Group) (find.VPP, error)
	Installed func(path string, plugins []string) []string
	// Rlimit is a soft and a hard limit of this process.
	Rlimit func(resource int) (soft, hard uint64, err error)
	// Space is a file system's size and what is free of it, in bytes, and
	// whether it is mounted read-only.
	Space func(path string) (total, free uint64, readOnly bool, err error)
}

// Link is a network interface.
type Link struct {
	Name  string
	Index int
	// Kind is the kernel's: "device" for a NIC, "veth", "bond", "vlan".
	Kind string
	MTU  int
	Up   bool
	// Master is the interface it is part of, and MasterKind that one's kind;
	// empty when it stands alone.
	Master, MasterKind string
	// Addresses are its global and unique local IPv6 ones.
	Addresses []netip.Addr
	// Driver of the NIC, and its PCI address; empty when it has none.
	Driver, PCI string
	// Queues to receive from, and how many it could have; 0 when the driver
	// does not say.
	Queues, MaxQueues int
	// Use is how VPP is to use it as an uplink, and Virtual whether that is by a
	// virtual device of DPDK's.
	Use     Driver
	Virtual bool
	// Held: VPP has the NIC now, and this is the host's link in its place.
	Held bool
	// XDP is the program on it, nil without one.
	XDP *Program
	// Native: the driver runs XDP itself. ZeroCopy: AF_XDP without copying.
	// Told: the kernel or a known driver's name says so.
	Native, ZeroCopy, Told bool
}

// Program is an XDP program.
type Program struct {
	ID   uint32
	Name string
	// Mode is "native", "generic" or "offloaded".
	Mode string
}

// ThisMachine is the one that the process runs on.
func ThisMachine() Machine {
	return Machine{
		Root: "/", Links: links, Defaults: defaults, Try: try, Guard: tryGuard,
		Locate: find.Locate, Find: find.Find, Installed: startup.InstalledPlugins,
		Rlimit: rlimit, Space: space,
	}
}

func rlimit(resource int) (soft, hard uint64, err error) {
	var r unix.Rlimit
	err = unix.Getrlimit(resource, &r)
	return r.Cur, r.Max, err
}

func space(path string) (total, free uint64, readOnly bool, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, 0, false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	size := uint64(s.Bsize)
	return s.Blocks * size, s.Bavail * size, s.Flags&unix.ST_RDONLY != 0, nil
}

func (m Machine) path(name string) string { return filepath.Join(m.Root, name) }

// text is a file's content without the white space around it; empty when it
// cannot be read.
func (m Machine) text(name string) string {
	raw, _ := os.ReadFile(m.path(name))
	return strings.TrimSpace(string(raw))
}

// number reads a file with one number in it.
func (m Machine) number(name string) (int, bool) {
	n, err := strconv.Atoi(m.text(name))
	return n, err == nil
}

func (m Machine) exists(name string) bool {
	_, err := os.Stat(m.path(name))
	return err == nil
}

// glob are the names, below the root, that match the pattern.
func (m Machine) glob(pattern string) []string {
	found, _ := filepath.Glob(m.path(pattern))
	for i, f := range found {
		if rel, err := filepath.Rel(m.Root, f); err == nil {
			found[i] = rel
		}
	}
	return found
}

// link is what the symbolic link points at; empty when there is none.
func (m Machine) link(name string) string {
	to, _ := os.Readlink(m.path(name))
	return to
}

// field is the value behind "name:" in a file of such lines, as those in /proc.
func (m Machine) field(file, name string) string {
	for line := range strings.Lines(m.text(file)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
