package preflight

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

// Driver is how VPP receives from an interface and sends to it.
type Driver string

// The drivers. Uplinks can have the first three, pods all but dpdk.
const (
	AFXDP    Driver = "af_xdp"
	AFPacket Driver = "af_packet"
	DPDK     Driver = "dpdk"
	Tap      Driver = "tap"
	Memif    Driver = "memif"
)

func uplinkDrivers() []Driver { return []Driver{AFXDP, AFPacket, DPDK} }
func podDrivers() []Driver    { return []Driver{AFXDP, AFPacket, Tap, Memif} }

// Options say what the machine is to be judged for.
type Options struct {
	// VPP is the executable's path; empty as for find.Locate.
	VPP    string `json:"vpp,omitempty"`
	RunDir string `json:"runDir"`
	// Uplinks are names of interfaces, with DPDK also PCI addresses. Empty: the
	// interfaces of the default IPv6 route.
	Uplinks []string `json:"uplinks,omitempty"`
	// Driver of the uplinks and PodDriver of the pods. Empty is for Quick alone:
	// not known, so that what depends on it is left out.
	Driver    Driver `json:"driver,omitempty"`
	PodDriver Driver `json:"podDriver,omitempty"`
	// MaxPods is how many pods VPP is to hold.
	MaxPods int `json:"maxPods"`
	// PodMTU in bytes; 0: the uplink's less the encapsulation.
	PodMTU int `json:"podMTU,omitempty"`
	// Workers, MainHeap, Buffers (per NUMA node) and BufferData (bytes of a
	// packet buffer) are VPP's, as run starts it.
	Workers    int    `json:"workers"`
	MainHeap   string `json:"mainHeap"`
	Buffers    int    `json:"buffers"`
	BufferData int    `json:"bufferData"`
}

// DefaultOptions are those of vpp-manager run and of the agent.
func DefaultOptions() Options {
	return Options{
		RunDir: "/run/vpp", Driver: AFXDP, PodDriver: AFXDP, MaxPods: 110,
		MainHeap: "256M", Buffers: 32768, BufferData: 2048,
	}
}

// pciAddress is a PCI function as Linux writes it.
var pciAddress = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// Validate reports what cannot be meant, by the names of the flags.
func (o Options) Validate() error {
	if o.Driver != "" && !slices.Contains(uplinkDrivers(), o.Driver) {
		return fmt.Errorf("--driver: %q is not one of %s", o.Driver, joinDrivers(uplinkDrivers()))
	}
	if o.PodDriver != "" && !slices.Contains(podDrivers(), o.PodDriver) {
		return fmt.Errorf("--pod-driver: %q is not one of %s", o.PodDriver, joinDrivers(podDrivers()))
	}
	for _, u := range o.Uplinks {
		switch {
		case pciAddress.MatchString(u):
			if o.Driver != DPDK {
				return fmt.Errorf("--uplink: %s is a PCI address, which only --driver dpdk can use; name the interface", u)
			}
		case u == "" || len(u) > 15 || strings.ContainsAny(u, "/ "):
			return fmt.Errorf("--uplink: %q is not the name of an interface", u)
		}
	}
	if o.MaxPods < 0 {
		return fmt.Errorf("--max-pods: %d is less than 0", o.MaxPods)
	}
	if o.PodMTU != 0 && (o.PodMTU < 1280 || o.PodMTU > 65535) {
		return fmt.Errorf("--pod-mtu: %d is not between 1280 and 65535", o.PodMTU)
	}
	if o.Workers < 0 {
		return fmt.Errorf("--workers: %d is less than 0", o.Workers)
	}
	if _, ok := startup.ParseSize(o.MainHeap); !ok {
		return fmt.Errorf("--main-heap: %q is not a size such as 256M", o.MainHeap)
	}
	if o.Buffers < 1024 {
		return fmt.Errorf("--buffers: %d is less than 1024", o.Buffers)
	}
	if o.BufferData < 1024 || o.BufferData > 65536 {
		return fmt.Errorf("--buffer-data: %d is not between 1024 and 65536", o.BufferData)
	}
	return nil
}

// uses reports whether uplinks or pods have this driver.
func (o Options) uses(d Driver) bool { return o.Driver == d || o.PodDriver == d }

func joinDrivers(drivers []Driver) string {
	names := make([]string, len(drivers))
	for i, d := range drivers {
		names[i] = string(d)
	}
	return strings.Join(names, ", ")
}
