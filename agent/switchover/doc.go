// Package switchover decides, on a node that has VPP and the kernel programmed
// with the same state side by side, which of the two carries the traffic, and
// makes it so.
//
// VPP gets traffic only while it answers, holds everything that is wanted, and
// vpp-manager is not about to stop it; and only for destinations that it holds.
// All else, and all traffic at any other time, is the kernel's. The way back to
// the kernel does not depend on this package: where VPP dies, its AF_XDP sockets
// go with it, and the shim passes packets on to the kernel.
package switchover
