package preflight

import (
	"strconv"
	"strings"
)

func itoa(n int) string { return strconv.Itoa(n) }

func vhostNet(in input) Finding {
	if in.exists("dev/vhost-net") {
		return ok("/dev/vhost-net is there")
	}
	return failure("modprobe vhost_net (CONFIG_VHOST_NET), and give the device to the container; or --pod-driver af_xdp", "no /dev/vhost-net, without which VPP makes no tap interface")
}

// bifurcated drivers share the NIC with DPDK: it is not unbound from them.
var bifurcated = map[string]bool{"mlx5_core": true, "mlx4_core": true, "mana": true}

// noPCI says why VFIO does not matter for these uplinks; "" when it does.
func (in input) noPCI() string {
	links, _ := in.uplinks()
	if len(links) == 0 {
		return "no uplink to look at"
	}
	for _, l := range links {
		if l.PCI != "" && !bifurcated[l.Driver] {
			return ""
		}
	}
	return "no uplink is a PCI device that DPDK would unbind from the kernel: virtual devices (vdev) and Mellanox NICs need no VFIO"
}

func vfio(in input) Finding {
	if why := in.noPCI(); why != "" {
		return skipped("%s", why)
	}
	groups := len(in.glob("sys/kernel/iommu_groups/*"))
	unsafe := in.text("sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
	noIOMMU := unsafe == "Y" || unsafe == "1"
	switch {
	case !in.exists("dev/vfio/vfio"):
		return failure("modprobe vfio-pci, and give /dev/vfio to the container", "no /dev/vfio/vfio")
	case !in.exists("sys/bus/pci/drivers/vfio-pci"):
		return failure("modprobe vfio-pci", "the driver vfio-pci is not loaded")
	case groups == 0 && !noIOMMU:
		return failure("intel_iommu=on (or amd_iommu=on) iommu=pt on the kernel's command line and VT-d/AMD-Vi in the firmware; in a virtual machine without one: echo Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
			"the kernel has no IOMMU in use, and VFIO's mode without is off")
	case groups == 0:
		return warning("turn an IOMMU on where there is one: without, the NIC can write to all memory", "VFIO without IOMMU (enable_unsafe_noiommu_mode)")
	}
	return ok("/dev/vfio/vfio, %d IOMMU groups", groups)
}

// iommuGroup: all devices of a group go to one owner.
func iommuGroup(in input) []Finding {
	if why := in.noPCI(); why != "" {
		return []Finding{skipped("%s", why)}
	}
	var out []Finding
	links, _ := in.uplinks()
	for _, l := range links {
		if l.PCI == "" || bifurcated[l.Driver] {
			continue
		}
		dir := "sys/bus/pci/devices/" + l.PCI + "/iommu_group"
		group := base(in.link(dir))
		if group == "" {
			out = append(out, skipped("the device is in no IOMMU group").of(l.Name))
			continue
		}
		var others []string
		for _, d := range in.glob(dir + "/devices/*") {
			// Bridges (class 06) need no binding.
			if name := base(d); name != l.PCI && !strings.HasPrefix(in.text(d+"/class"), "0x06") {
				others = append(others, name)
			}
		}
		if others != nil {
			out = append(out, warning("bind them to vfio-pci as well, or use a slot with a group of its own", "group %s, with %s: VFIO takes the whole group or nothing", group, strings.Join(others, ", ")).of(l.Name))
			continue
		}
		out = append(out, ok("group %s, alone", group).of(l.Name))
	}
	return out
}
