package uplink

import (
	"fmt"
	"strings"
)

// Section is the content of the dpdk section of VPP's startup configuration
// for the uplinks that were taken; empty without uplinks. prefix tells the
// DPDK processes of a machine apart. threads are those that forward. Whether
// huge pages are used is not said here: it is decided at each start.
func (u *Uplinks) Section(prefix string, threads int) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.held) == 0 {
		return ""
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	// DPDK's own runtime files would be in a place of the whole machine.
	line("no-shconf")
	line("file-prefix %s", prefix)
	devices := 0
	for _, d := range u.held {
		if d.VDev == "" {
			devices++
			line("dev %s { name %s num-rx-queues %d }", d.PCI, Interface(d.Link), max(threads, 1))
			continue
		}
		name, args, _ := strings.Cut(d.VDev, ",")
		if args != "" {
			args = "," + args
		}
		line("vdev %s0,iface=%s%s", name, d.Aside, args)
		// A virtual device takes its name from the defaults alone.
		line("dev default { name %s }", Interface(d.Link))
	}
	if devices == 0 {
		line("no-pci")
	}
	return b.String()
}
