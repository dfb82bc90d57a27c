package uplink

import (
	"fmt"
	"hash/fnv"
	"os"
	"strings"
)

// Prefixes of the links that stand in for an uplink. The kernel's names have
// 15 bytes at most.
const (
	hostLinkPrefix = "swh-"
	asidePrefix    = "swn-"
	maxName        = 15
)

// standIn names a link after an uplink. A long name is shortened with a hash.
func standIn(prefix, link string) string {
	if len(prefix)+len(link) <= maxName {
		return prefix + link
	}
	h := fnv.New32a()
	h.Write([]byte(link))
	return fmt.Sprintf("%s%08x", prefix, h.Sum32())
}

// HostLink is the name of VPP's end of the veth that the host has in place of
// an uplink.
func HostLink(link string) string { return standIn(hostLinkPrefix, link) }

// Interface is VPP's name of the NIC of an uplink.
func Interface(link string) string { return DriverDPDK + "-" + link }

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
