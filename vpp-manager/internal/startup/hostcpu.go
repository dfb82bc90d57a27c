package startup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/utils/cpuset"
)

// ReadCPUs reads what the kernel says, in sys below root ("/", but for tests).
// Links are the uplinks. What cannot be read counts as none.
func ReadCPUs(root string, links []string) (CPUs, error) {
	var set unix.CPUSet
	// It has the cgroup's cpuset in it already.
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return CPUs{}, err
	}
	var allowed []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			allowed = append(allowed, i)
		}
	}
	c := CPUs{
		Allowed:  cpuset.New(allowed...),
		Isolated: readList(filepath.Join(root, "sys/devices/system/cpu/isolated")),
	}
	for _, l := range links {
		// A virtual link has no device.
		near := readList(filepath.Join(root, "sys/class/net", l, "device/local_cpulist"))
		c.Near = c.Near.Union(near)
	}
	return c, nil
}

func readList(path string) cpuset.CPUSet {
	raw, err := os.ReadFile(path)
	if err != nil {
		return cpuset.New()
	}
	set, err := cpuset.Parse(strings.TrimSpace(string(raw)))
	if err != nil {
		return cpuset.New()
	}
	return set
}

// ReceiveQueues counts those of a link.
func ReceiveQueues(root, link string) int {
	found, _ := filepath.Glob(filepath.Join(root, "sys/class/net", link, "queues/rx-*"))
	return len(found)
}

// DefaultLinks are the interfaces of the default routes of this network
// namespace, of both families.
func DefaultLinks() []string {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil
	}
	indexes := map[int]bool{}
	for _, r := range routes {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones != 0 {
				continue
			}
		}
		if r.LinkIndex != 0 {
			indexes[r.LinkIndex] = true
		}
		for _, h := range r.MultiPath {
			indexes[h.LinkIndex] = true
		}
	}
	var out []string
	for i := range indexes {
		if l, err := netlink.LinkByIndex(i); err == nil {
			out = append(out, l.Attrs().Name)
		}
	}
	slices.Sort(out)
	return out
}
