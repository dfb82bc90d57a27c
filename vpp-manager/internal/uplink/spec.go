package uplink

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// DriverDPDK: VPP drives the NIC itself.
const DriverDPDK = "dpdk"

// ErrSpec: an uplink's text cannot be read.
var ErrSpec = errors.New("uplink")

// Spec is one dedicated uplink as it is asked for.
type Spec struct {
	// Link is the name of the network interface; empty when only PCI is given.
	Link string
	// PCI is the device's address, such as 0000:03:00.0; empty: that of Link.
	PCI string
	// VDev is a DPDK virtual device that works on the link itself, such as
	// net_af_packet; more arguments may follow a comma. Empty: the NIC.
	VDev string
}

var (
	pciAddress = regexp.MustCompile(`^([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]$`)
	linkName   = regexp.MustCompile(`^[A-Za-z0-9_.@+-]{1,15}$`)
	vdevName   = regexp.MustCompile(`^net_[a-z_]+(,[a-z_]+=[A-Za-z0-9_./-]+)*$`)
)

// ParseSpec reads NAME=dpdk, NAME=dpdk:PCI-ADDRESS or NAME=dpdk:VDEV, where
// NAME is the interface's name or, with NAME=dpdk alone, a PCI address. Another
// form is ErrSpec.
func ParseSpec(text string) (Spec, error) {
	fail := func(format string, args ...any) (Spec, error) {
		return Spec{}, fmt.Errorf("%w %q: %s; write eth0=dpdk, eth0=dpdk:0000:03:00.0, 0000:03:00.0=dpdk or eth0=dpdk:net_af_packet",
			ErrSpec, text, fmt.Sprintf(format, args...))
	}
	name, rest, ok := strings.Cut(text, "=")
	if !ok {
		return fail("there is no =")
	}
	driver, device, hasDevice := strings.Cut(rest, ":")
	if driver != DriverDPDK {
		return fail("driver %q is unknown; af_xdp and af_packet share the NIC with the host and need no uplink here", driver)
	}
	var s Spec
	switch {
	case pciAddress.MatchString(name):
		s.PCI = fullPCI(name)
		if hasDevice {
			return fail("two devices are named")
		}
		return s, nil
	case !linkName.MatchString(name):
		return fail("%q is not an interface's name", name)
	}
	s.Link = name
	switch {
	case !hasDevice:
	case pciAddress.MatchString(device):
		s.PCI = fullPCI(device)
	case vdevName.MatchString(device):
		s.VDev = device
	default:
		return fail("%q is neither a PCI address nor the name of a virtual device", device)
	}
	return s, nil
}

// fullPCI adds the domain that people leave out.
func fullPCI(a string) string {
	if strings.Count(a, ":") == 1 {
		a = "0000:" + a
	}
	return strings.ToLower(a)
}

// String is the text that ParseSpec reads.
func (s Spec) String() string {
	switch {
	case s.Link == "":
		return s.PCI + "=" + DriverDPDK
	case s.VDev != "":
		return s.Link + "=" + DriverDPDK + ":" + s.VDev
	case s.PCI != "":
		return s.Link + "=" + DriverDPDK + ":" + s.PCI
	}
	return s.Link + "=" + DriverDPDK
}
