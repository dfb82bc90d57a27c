package preflight

// checks is the table, in the order in which it is shown. docs/preflight.md has
// a section for each.
func checks() []check {
	af := needs(AFXDP, AFPacket, DPDK) // every uplink driver: not when it is unknown
	xdp := needs(AFXDP)
	uplinkXDP := uplinkNeeds(AFXDP)
	shared := uplinkNeeds(AFXDP, AFPacket)
	dpdk := uplinkNeeds(DPDK)
	return []check{
		{name: "vpp-binary", title: "VPP is installed", start: true, run: one(vppBinary)},
		{name: "vpp-plugins", title: "VPP has the plugins of the drivers", start: true, run: one(vppPlugins)},
		{name: "vpp-version", title: "VPP's version is known to work", run: one(vppVersion)},
		{name: "vpp-api", title: "VPP starts, and has the API messages", run: one(vppAPI)},
		{name: "vpp-running", title: "no other VPP is in the way", run: vppRunning},
		{name: "run-dir", title: "the run directory can be used", start: true, run: one(runDir)},

		{name: "kernel-version", title: "the kernel is new enough", start: true, run: one(kernelVersion)},
		{name: "privileges", title: "this process may do what VPP has to", start: true, skip: af, run: one(privileges)},
		{name: "veth", title: "the kernel makes veth pairs", run: feature(FeatureVeth)},
		{name: "packet-socket", title: "the kernel has packet sockets", start: true, skip: needs(AFPacket), run: feature(FeaturePacket)},
		{name: "xdp-shim", title: "the kernel takes the XDP shim", start: true, skip: xdp, run: feature(FeatureShim)},
		{name: "xdp-veth", title: "it can be attached to veth", start: true, skip: xdp, run: feature(FeatureXDP)},
		{name: "af-xdp", title: "AF_XDP sockets work as VPP uses them", start: true, skip: xdp, run: feature(FeatureAFXDP)},
		{name: "guard", title: "the kernel takes over in the moment in which VPP dies", skip: xdp, run: one(guard)},
		{name: "btf", title: "the kernel describes its types", skip: xdp, run: one(btf)},
		{name: "bpffs", title: "the BPF file system", skip: xdp, run: one(bpffs)},
		{name: "seg6-encap", title: "the kernel encapsulates (H.Encaps.Red)", run: feature(FeatureEncap)},
		{name: "seg6-nexthop", title: "the kernel has nexthop objects with SRv6", run: feature(FeatureNexthop)},
		{name: "seg6-end-dx6", title: "the kernel has End.DX6", run: feature(FeatureDX6)},
		{name: "seg6-end-dx4", title: "the kernel has End.DX4", run: feature(FeatureDX4)},
		{name: "seg6-un", title: "the kernel has End with NEXT-C-SID (uN)", run: feature(FeatureUN)},
		{name: "vrf", title: "the kernel has VRF devices", run: feature(FeatureVRF)},
		{name: "flow-label", title: "the kernel writes flow labels at encapsulation", run: one(flowLabel)},

		{name: "huge-pages", title: "huge pages for heap and buffers", run: one(hugePages)},
		{name: "buffers", title: "enough packet buffers", run: one(buffers)},
		{name: "memory", title: "enough memory", run: one(memory)},
		{name: "memlock", title: "memory may be locked", start: true, skip: needs(AFXDP, DPDK), run: one(memlock)},
		{name: "shared-memory", title: "/dev/shm holds VPP's segments", start: true, run: one(sharedMemory)},
		{name: "file-descriptors", title: "enough file descriptors", run: one(fileDescriptors)},

		{name: "cpus", title: "enough CPUs", start: true, run: one(cpus)},
		{name: "isolated-cpus", title: "CPUs for the workers alone", run: one(isolatedCPUs)},
		{name: "hyper-threads", title: "workers do not share cores", run: one(hyperThreads)},
		{name: "clock-source", title: "the time-stamp counter is steady", run: one(clockSource)},

		{name: "uplink", title: "the uplinks exist and are up", start: true, run: uplinkCheck},
		{name: "uplink-address", title: "the node has an IPv6 address", run: one(uplinkAddress)},
		{name: "uplink-driver", title: "the NIC's driver runs XDP", skip: uplinkXDP, run: eachWith(uplinkDriver, AFXDP)},
		{name: "uplink-queues", title: "the NIC's queues", skip: uplinkXDP, run: eachWith(uplinkQueues, AFXDP)},
		{name: "uplink-mtu", title: "the MTU fits VPP's buffers", skip: needs(AFXDP), run: each(uplinkMTU)},
		{name: "uplink-stacking", title: "the uplink is no part of a bond, bridge or VLAN", run: each(uplinkStacking)},
		{name: "uplink-xdp", title: "no other XDP program on the uplink", start: true, skip: uplinkXDP, run: eachWith(uplinkProgram, AFXDP)},
		{name: "other-xdp", title: "no other XDP programs on this machine", skip: xdp, run: one(otherPrograms)},
		{name: "uplink-manager", title: "who configures the uplink", run: each(uplinkManager)},
		{name: "ipv6", title: "IPv6 is on", start: true, run: ipv6},
		{name: "forwarding", title: "forwarding can be turned on", skip: shared, run: one(forwarding)},
		{name: "rp-filter", title: "reverse path filter", skip: shared, run: eachWith(rpFilter, AFXDP, AFPacket)},

		{name: "memif", title: "VPP has the plugins of pods' memifs", run: one(memif)},
		{name: "vhost-net", title: "/dev/vhost-net", run: one(vhostNet)},
		{name: "vfio", title: "VFIO for a NIC of VPP's own", skip: dpdk, run: eachWith(vfio, DPDK)},
		{name: "iommu-group", title: "the IOMMU group of a NIC of VPP's own", skip: dpdk, run: eachWith(iommuGroup, DPDK)},
	}
}
