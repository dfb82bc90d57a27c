package preflight

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/uplink"
)

// Driver is how VPP receives from an interface and sends to it.
type Driver string

// The drivers. Uplinks can have all of them, pods all but dpdk.
const (
	AFXDP    Driver = "af_xdp"
	AFPacket Driver = "af_packet"
	DPDK     Driver = "dpdk"
)

func uplinkDrivers() []Driver { return []Driver{AFXDP, AFPacket, DPDK} }
func podDrivers() []Driver    { return []Driver{AFXDP, AFPacket} }

// Options say what the machine is to be judged for.
type Options struct {
	// VPP is the executable's path; empty as for find.Locate.
	VPP    string `json:"vpp,omitempty"`
	RunDir string `json:"runDir"`
	// Uplinks are as vpp-manager run takes them: names of interfaces, or
	// NAME=dpdk[:DEVICE] for one that VPP has for itself. With DPDK as Driver a
	// name may be a PCI address. Empty: the interfaces of the default IPv6 route.
	Uplinks []string `json:"uplinks,omitempty"`
	// NoIOMMU: a NIC may be given to VPP where no IOMMU holds it back.
	NoIOMMU bool `json:"noIOMMU,omitempty"`
	// Driver of uplinks that name none, and PodDriver of the pods. Empty is for
	// Quick alone: not known, so that what depends on it is left out.
	Driver    Driver `json:"driver,omitempty"`
	PodDriver Driver `json:"podDriver,omitempty"`
	// MaxPods is how many pods VPP is to hold.
	MaxPods int `json:"maxPods"`
	// PodMTU in bytes; 0: the uplink's less the encapsulation.
	PodMTU int `json:"podMTU,omitempty"`
	// The rest is as run starts VPP. MainCore is a CPU, or -1; WorkerCores a list
	// of CPUs or empty: chosen as run chooses. Buffers are for each NUMA node, 0:
	// as run computes them; BufferData is the bytes of one. Ring is the size of
	// the uplinks' AF_XDP rings, 0: VPP's default.
	Workers     int    `json:"workers"`
	MainCore    int    `json:"mainCore"`
	WorkerCores string `json:"workerCores,omitempty"`
	MainHeap    string `json:"mainHeap"`
	Buffers     int    `json:"buffers"`
	BufferData  int    `json:"bufferData"`
	Ring        int    `json:"ring,omitempty"`
}

// DefaultOptions are those of vpp-manager run and of the agent.
func DefaultOptions() Options {
	return Options{
		RunDir: "/run/vpp", Driver: AFXDP, PodDriver: AFXDP, MaxPods: 110,
		MainCore: -1, MainHeap: "256M", BufferData: 2048,
	}
}

// pciAddress is a PCI function as Linux writes it.
var pciAddress = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// wanted is an uplink as it is asked for.
type wanted struct {
	// name of the interface, or a PCI address.
	name   string
	driver Driver
	// pci is the address that was given beside the name; often empty.
	pci string
	// virtual: DPDK opens it by a virtual device, not the NIC.
	virtual bool
}

// wanted reads Uplinks.
func (o Options) wanted() ([]wanted, error) {
	var out []wanted
	for _, text := range o.Uplinks {
		if !strings.Contains(text, "=") {
			switch {
			case pciAddress.MatchString(text):
				if o.Driver != DPDK {
					return nil, fmt.Errorf("--uplink: %s is a PCI address, which only dpdk can use: %s=dpdk, or name the interface", text, text)
				}
			case text == "" || len(text) > 15 || strings.ContainsAny(text, "/ "):
				return nil, fmt.Errorf("--uplink: %q is not the name of an interface", text)
			}
			out = append(out, wanted{name: text, driver: o.Driver})
			continue
		}
		spec, err := uplink.ParseSpec(text)
		if err != nil {
			return nil, fmt.Errorf("--uplink: %w", err)
		}
		w := wanted{name: spec.Link, driver: DPDK, pci: spec.PCI, virtual: spec.VDev != ""}
		if w.name == "" {
			w.name = spec.PCI
		}
		out = append(out, w)
	}
	return out, nil
}

// Validate reports what cannot be meant, by the names of the flags.
func (o Options) Validate() error {
	if o.Driver != "" && !slices.Contains(uplinkDrivers(), o.Driver) {
		return fmt.Errorf("--driver: %q is not one of %s", o.Driver, joinDrivers(uplinkDrivers()))
	}
	if o.PodDriver != "" && !slices.Contains(podDrivers(), o.PodDriver) {
		return fmt.Errorf("--pod-driver: %q is not one of %s", o.PodDriver, joinDrivers(podDrivers()))
	}
	if _, err := o.wanted(); err != nil {
		return err
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
	if _, err := startup.ParseCPUs(o.WorkerCores); err != nil {
		return fmt.Errorf("--worker-cores: %w", err)
	}
	if o.Ring < 0 || o.Ring > 32768 {
		return fmt.Errorf("--ring: %d is not between 0 and 32768", o.Ring)
	}
	if o.Buffers != 0 && o.Buffers < 1024 {
		return fmt.Errorf("--buffers: %d is less than 1024", o.Buffers)
	}
	if o.BufferData < 1024 || o.BufferData > 65536 {
		return fmt.Errorf("--buffer-data: %d is not between 1024 and 65536", o.BufferData)
	}
	return nil
}

// uses reports whether uplinks or pods have this driver.
func (o Options) uses(d Driver) bool { return o.PodDriver == d || o.uplinksUse(d) }

// uplinksUse reports whether an uplink has this driver.
func (o Options) uplinksUse(d Driver) bool {
	specs, err := o.wanted()
	if err != nil || len(specs) == 0 {
		return o.Driver == d
	}
	return slices.ContainsFunc(specs, func(w wanted) bool { return w.driver == d })
}

func joinDrivers(drivers []Driver) string {
	names := make([]string, len(drivers))
	for i, d := range drivers {
		names[i] = string(d)
	}
	return strings.Join(names, ", ")
}
