package preflight

import "testing"

func TestVhostNet(t *testing.T) {
	o := goodOptions()
	expect(t, "vhost-net", goodMachine(t, nil), o, OK, "found; not needed")
	expect(t, "vhost-net", goodMachine(t, map[string]string{"dev/vhost-net": "gone"}), o, OK, "not there; not needed")
}

func TestVFIO(t *testing.T) {
	const (
		noIOMMU = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
		loaded  = "sys/bus/pci/drivers/vfio-pci/"
		group   = "sys/bus/pci/devices/0000:03:00.0/iommu_group"
		uio     = "sys/bus/pci/drivers/uio_pci_generic/"
	)
	o := goodOptions()
	expect(t, "vfio", goodMachine(t, nil), o, Skipped, "only for uplinks with dpdk")
	o.Driver = DPDK
	expect(t, "vfio", goodMachine(t, nil), o, OK, "0000:03:00.0, by vfio-pci")
	expect(t, "vfio", goodMachine(t, map[string]string{"dev/vfio/vfio": "gone"}), o, Failure, "no /dev/vfio/vfio")
	expect(t, "vfio", goodMachine(t, map[string]string{loaded: "gone"}), o, Failure, "not loaded")
	none := map[string]string{group: "gone"}
	expect(t, "vfio", goodMachine(t, none), o, Failure, "no IOMMU protects memory")
	o.NoIOMMU = true
	expect(t, "vfio", goodMachine(t, none), o, Failure, "neither vfio-pci")
	none[noIOMMU] = "N\n"
	expect(t, "vfio", goodMachine(t, none), o, Warning, "by vfio-pci without an IOMMU")
	none[loaded], none[uio] = "gone", ""
	expect(t, "vfio", goodMachine(t, none), o, Warning, "by uio_pci_generic")

	expect(t, "vfio", goodMachine(t, nil, with(func(l *Link) { l.PCI = "" })), o, Failure, "eth0=dpdk:net_af_packet")
	expect(t, "vfio", goodMachine(t, nil, with(func(l *Link) { l.Driver = "mlx5_core" })), o, Skipped, "mlx5_core")
	o.Uplinks = []string{"eth0=dpdk:net_af_packet"}
	expect(t, "vfio", goodMachine(t, nil), o, Skipped, "virtual device")
}

func TestIOMMUGroup(t *testing.T) {
	const (
		group   = "sys/kernel/iommu_groups/7/devices/"
		devices = "sys/bus/pci/devices/"
	)
	o := goodOptions()
	o.Uplinks = []string{"eth0=dpdk"}
	expect(t, "iommu-group", goodMachine(t, nil), o, OK, "group 7, with nothing of the host's")
	shared := map[string]string{
		group + "0000:03:00.0/":         "",
		group + "0000:02:00.0/":         "",
		devices + "0000:02:00.0/class":  "0x060400\n", // a bridge
		devices + "0000:02:00.0/driver": "-> ../../drivers/pcieport",
		group + "0000:03:00.1/":         "",
		devices + "0000:03:00.1/class":  "0x020000\n",
		devices + "0000:03:00.1/driver": "-> ../../drivers/vfio-pci",
		devices + "0000:03:00.0/driver": "-> ../../drivers/ice",
	}
	expect(t, "iommu-group", goodMachine(t, shared), o, OK, "group 7")
	shared[devices+"0000:03:00.1/driver"] = "-> ../../drivers/ice"
	expect(t, "iommu-group", goodMachine(t, shared), o, Failure, "group 7 also has 0000:03:00.1 (ice)")
	expect(t, "iommu-group", goodMachine(t, map[string]string{"sys/bus/pci/devices/0000:03:00.0/iommu_group": "gone"}), o, Skipped, "in no IOMMU group")
}

// TestMixedUplinks: one shared and one of VPP's own, as run takes them.
func TestMixedUplinks(t *testing.T) {
	o := goodOptions()
	o.Uplinks = []string{"eth0", "eth1=dpdk"}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	second := with(func(l *Link) { l.Name, l.Index = "eth1", 3 })
	m := goodMachine(t, nil, goodLink(), second)
	for name, want := range map[string][2]Verdict{
		"uplink-driver": {OK, Skipped},
		"uplink-xdp":    {OK, Skipped},
		"uplink-mtu":    {OK, OK},
		"vfio":          {Skipped, OK},
		"iommu-group":   {Skipped, OK},
		"rp-filter":     {OK, Skipped},
	} {
		got := result(t, name, m, o)
		if len(got) != 2 || got[0].Verdict != want[0] || got[1].Verdict != want[1] {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	expect(t, "vpp-plugins", m, o, OK, "af_xdp_plugin.so, dpdk_plugin.so")
}

// TestHeldUplink: on a node that runs, the host's link in place of the NIC is no
// failure; and Quick leaves uplinks of VPP's own to run, which repairs first.
func TestHeldUplink(t *testing.T) {
	o := goodOptions()
	o.Uplinks = []string{"eth0=dpdk"}
	inPlace := with(func(l *Link) { l.Kind, l.Driver, l.PCI = "veth", "veth", "" })
	expect(t, "vfio", goodMachine(t, nil, inPlace), o, Failure, "not on the PCI bus")
	const file = "run/vpp/manager.json"
	m := goodMachine(t, map[string]string{file: `{"version":1,"state":"ready","uplinks":[{"link":"eth0","driver":"dpdk"}]}`}, inPlace)
	expect(t, "uplink", m, o, OK, "VPP has its NIC now")
	expect(t, "vfio", m, o, Skipped, "VPP has it now")
	expect(t, "uplink-stacking", m, o, OK, "")
	m = goodMachine(t, map[string]string{file: `{"version":1,"state":"stopped","uplinks":[{"link":"eth0","driver":"dpdk"}]}`}, inPlace)
	expect(t, "vfio", m, o, Failure, "not on the PCI bus")

	o.Uplinks = []string{"gone=dpdk:0000:09:00.0"}
	expect(t, "uplink", m, o, Failure, "no such interface")
	if err := QuickReport(t.Context(), m, o).Err(false); err != nil {
		t.Error(err)
	}
	o.Uplinks = []string{"gone=dpdk:0000:03:00.0"}
	expect(t, "uplink", goodMachine(t, nil), o, OK, "a PCI device")
}
