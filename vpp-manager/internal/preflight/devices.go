package preflight

import (
	"strconv"
	"strings"
)

func itoa(n int) string { return strconv.Itoa(n) }

// vhostNet is for information: with it VPP could make taps, which no driver of
// pods uses.
func vhostNet(in input) Finding {
	const why = "not needed: pods have veths, so that the kernel can carry them as well"
	if in.exists("dev/vhost-net") {
		return ok("found; %s", why)
	}
	return ok("not there; %s", why)
}

// bifurcated drivers share the NIC with DPDK: it is not unbound from them.
var bifurcated = map[string]bool{"mlx5_core": true, "mlx4_core": true, "mana": true}

// noPCI says why VFIO does not matter for an uplink; "" when it does.
func noPCI(l Link) string {
	switch {
	case l.Held:
		return "VPP has it now"
	case l.Virtual:
		return "a virtual device needs none"
	case bifurcated[l.Driver]:
		return "stays with the kernel's driver " + l.Driver
	}
	return ""
}

const modprobe = "modprobe vfio-pci, and have it loaded at boot (/etc/modules-load.d)"

// vfio says whether the NIC can be handed to VPP, by the rules of run.
func vfio(in input, l Link) Finding {
	if why := noPCI(l); why != "" {
		return skipped("%s", why)
	}
	if l.PCI == "" {
		return failure("a NIC on the PCI bus, or a virtual device: --uplink "+l.Name+"=dpdk:net_af_packet", "it is not on the PCI bus")
	}
	hasIOMMU := in.link("sys/bus/pci/devices/"+l.PCI+"/iommu_group") != ""
	loaded := in.exists("sys/bus/pci/drivers/vfio-pci")
	noIOMMUMode := in.exists("sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
	switch {
	case hasIOMMU && !loaded:
		return failure(modprobe, "the driver vfio-pci is not loaded")
	case hasIOMMU && !in.exists("dev/vfio/vfio"):
		return failure("give /dev/vfio to the container", "no /dev/vfio/vfio")
	case hasIOMMU:
		return ok("%s, by vfio-pci", l.PCI)
	case !in.NoIOMMU:
		return failure("turn one on: VT-d or AMD-Vi in the firmware, and intel_iommu=on or amd_iommu=on on the kernel's command line; in a virtual machine without one, --uplink-no-iommu",
			"no IOMMU protects memory from %s", l.PCI)
	case loaded && noIOMMUMode:
		return warning("use an IOMMU where there is one", "%s, by vfio-pci without an IOMMU: the device can write to all memory", l.PCI)
	case in.exists("sys/bus/pci/drivers/uio_pci_generic"):
		return warning("use an IOMMU where there is one", "%s, by uio_pci_generic: the device can write to all memory", l.PCI)
	}
	return failure(modprobe, "neither vfio-pci, with its mode without IOMMU, nor uio_pci_generic is loaded")
}

// iommuGroup: VFIO hands out a group as a whole, so that nothing in it may be
// the host's.
func iommuGroup(in input, l Link) Finding {
	if why := noPCI(l); why != "" {
		return skipped("%s", why)
	}
	dir := "sys/bus/pci/devices/" + l.PCI + "/iommu_group"
	group := base(in.link(dir))
	if l.PCI == "" || group == "" {
		return skipped("it is in no IOMMU group")
	}
	var used []string
	for _, d := range in.glob(dir + "/devices/*") {
		name := base(d)
		device := "sys/bus/pci/devices/" + name
		driver := base(in.link(device + "/driver"))
		free := driver == "" || driver == "vfio-pci" || driver == "pci-stub"
		if name != l.PCI && !free && !strings.HasPrefix(in.text(device+"/class"), "0x0604") {
			used = append(used, name+" ("+driver+")")
		}
	}
	if used != nil {
		return failure("give them all to VPP, or move one to another slot", "group %s also has %s, which the host uses", group, strings.Join(used, ", "))
	}
	return ok("group %s, with nothing of the host's in it", group)
}
