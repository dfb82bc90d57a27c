package preflight

import "testing"

func TestVhostNet(t *testing.T) {
	o := goodOptions()
	expect(t, "vhost-net", goodMachine(t, nil), o, Skipped, "only for tap")
	o.PodDriver = Tap
	expect(t, "vhost-net", goodMachine(t, nil), o, OK, "is there")
	expect(t, "vhost-net", goodMachine(t, map[string]string{"dev/vhost-net": "gone"}), o, Failure, "modprobe vhost_net")
}

func TestVFIO(t *testing.T) {
	const noIOMMU = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
	o := goodOptions()
	expect(t, "vfio", goodMachine(t, nil), o, Skipped, "only for uplinks with dpdk")
	o.Driver = DPDK
	expect(t, "vfio", goodMachine(t, nil), o, OK, "1 IOMMU group")
	expect(t, "vfio", goodMachine(t, map[string]string{"dev/vfio/vfio": "gone"}), o, Failure, "no /dev/vfio/vfio")
	expect(t, "vfio", goodMachine(t, map[string]string{"sys/bus/pci/drivers/vfio-pci/": "gone"}), o, Failure, "not loaded")
	none := map[string]string{"sys/kernel/iommu_groups/7/": "gone"}
	expect(t, "vfio", goodMachine(t, none), o, Failure, "no IOMMU in use")
	none[noIOMMU] = "Y\n"
	expect(t, "vfio", goodMachine(t, none), o, Warning, "without IOMMU")

	expect(t, "vfio", goodMachine(t, nil, with(func(l *Link) { l.PCI = "" })), o, Skipped, "virtual devices")
	expect(t, "vfio", goodMachine(t, nil, with(func(l *Link) { l.Driver = "mlx5_core" })), o, Skipped, "Mellanox")
}

func TestIOMMUGroup(t *testing.T) {
	const group = "sys/kernel/iommu_groups/7/devices/"
	o := goodOptions()
	o.Driver = DPDK
	expect(t, "iommu-group", goodMachine(t, nil), o, OK, "group 7, alone")
	shared := map[string]string{
		group + "0000:03:00.0/class": "0x020000\n",
		group + "0000:02:00.0/class": "0x060400\n", // a bridge
	}
	expect(t, "iommu-group", goodMachine(t, shared), o, OK, "alone")
	shared[group+"0000:03:00.1/class"] = "0x020000\n"
	expect(t, "iommu-group", goodMachine(t, shared), o, Warning, "group 7, with 0000:03:00.1")
	expect(t, "iommu-group", goodMachine(t, map[string]string{"sys/bus/pci/devices/0000:03:00.0/iommu_group": "gone"}), o, Skipped, "in no IOMMU group")
}
