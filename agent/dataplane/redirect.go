package dataplane

import (
	"net/netip"
	"slices"
)

// Redirects are the destinations that a userspace dataplane is to carry on a
// node where the kernel stands ready beside it. What is not here stays with the
// kernel.
type Redirects struct {
	// Uplink are destinations of packets that arrive on an uplink: SIDs.
	Uplink map[netip.Prefix]Redirect
	// Pods are destinations of packets that come from a pod, and inner
	// destinations of packets from an uplink.
	Pods map[netip.Prefix]Redirect
}

// Redirect is one destination.
type Redirect struct {
	// Inner: only if the inner destination is one of Redirects.Pods as well
	// (End.DT*: what is decapsulated here must be known here).
	Inner bool
	// Kernel: the userspace dataplane cannot carry it, though it may carry a
	// larger prefix around it (an address that a pod here has out of another
	// node's prefix).
	Kernel bool
	// Needs are the objects that the userspace dataplane must hold before it
	// can carry the destination.
	Needs []Key
}

// NewRedirects returns empty Redirects.
func NewRedirects() Redirects {
	return Redirects{Uplink: map[netip.Prefix]Redirect{}, Pods: map[netip.Prefix]Redirect{}}
}

// Equal reports whether the two ask for the same.
func (r Redirect) Equal(o Redirect) bool {
	return r.Inner == o.Inner && r.Kernel == o.Kernel && slices.Equal(r.Needs, o.Needs)
}
