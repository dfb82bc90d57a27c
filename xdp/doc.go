// Package xdp is the XDP shim: the program that decides, for each packet that
// arrives on an uplink or from a pod, whether VPP or the kernel gets it; and the
// Go side that finds it on links, fills its tables and reads its counters.
//
// It is the only package that imports cilium/ebpf.
package xdp
