// Package uplink gives a NIC to VPP and gives it back.
//
// A dedicated uplink is driven by VPP (DPDK). The host keeps its name, address,
// MTU, addresses and routes on a veth: the host's end is called as the NIC was,
// VPP opens the other end and is a wire between it and the NIC. What is needed
// to undo all of it is on disk, synced, before anything is touched, so that a
// later start or "vpp-manager restore" repairs what a killed manager left.
package uplink
