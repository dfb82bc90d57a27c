// Package linux is a dataplane.Backend on the Linux kernel: routes, nexthop
// objects, seg6 and seg6local. It needs Linux 6.1 or newer with
// CONFIG_IPV6_SEG6_LWTUNNEL; no kernel module of its own, no tool.
//
// # Namespace
//
// New binds the backend to the network namespace of the calling thread. Netlink
// sockets stay in the namespace in which they were opened; /proc/sys/net, on the
// other hand, follows the thread that opens the file. The backend therefore has
// one thread of its own that stays in the namespace, and does all sysctl work
// there. A caller that has changed its thread's namespace must hold
// runtime.LockOSThread around New, and nothing after it.
//
// In a user namespace everything works but the encapsulation source, which the
// kernel then takes from the outgoing interface.
//
// # How the state maps onto the kernel
//
// A policy is a nexthop group whose members are one nexthop object for each
// segment list (seg6, mode encap.red, on device lo, which survives a flap of an
// uplink). The group's id stays for the policy's life and every route refers to
// it, so a policy changes for all its traffic in one atomic message. The binding
// SID is a /128 route to the group in table 0x5357, to which no rule leads: it
// names the policy for a dump, and forwards nothing. A steering is a route to the
// group.
// Which list a flow takes is decided by the kernel's multipath hash
// (net.ipv4.fib_multipath_hash_policy and its IPv6 twin, which belong to the
// host).
//
// The kernel keeps the outer route of a segment list in a cache for each CPU.
// Where this node itself has several next hops to the first segment, the flows
// of one list on one CPU therefore all leave by the same one. Routers further on
// spread them by the flow label.
//
// Local SIDs are seg6local routes on the first uplink. End.DT4 in the main table
// is End.DX4 with next hop 0.0.0.0, which looks the inner destination up there
// and needs no VRF; in any other table End.DT4 and End.DT46 need a VRF device
// bound to the table. End.DT6 in the main table is End.DX6 with next hop ::, for
// the sake of netfilter: with net.netfilter.nf_hooks_lwtunnel on, which this
// backend sees to, the DX behaviours lead what they decapsulate through
// PREROUTING, where the kernel undoes the address translation of services; the
// kernel's End.DT6 does not. The kernel removes routes on a device that goes down, local
// SIDs included; Watch tells, and the caller applies what a Dump finds missing.
//
// # Path MTU
//
// The kernel counts 48+16n bytes of headroom for n segments with encap.red, but
// the packets grow by 40 (n=1) or 32+16n (n>1). Steering routes carry a locked
// MTU that makes up for the difference, or else packets of exactly the pod's MTU
// would be refused.
//
// # Ownership
//
// Routes, nexthops, addresses and neighbours carry protocol number 83
// (rtm_protocol, nh_protocol, IFA_PROTO, NDA_PROTOCOL); nexthop ids come from
// 0x53570000 to 0x5357FFFF. Each kind of route has its own metric, so that two
// objects with one prefix never share a slot in the table and an object can
// follow another (a steering after a route) without a gap: 80 local SIDs, 81
// binding SIDs, 82 steerings, 83 routes. A foreign object in such a slot is left
// alone and reported as ErrConflict. Pod links carry the interface alias
// "sidewinder:pod".
//
// Some values cannot be read back from the kernel as they were given (weights
// beyond the kernel's range, an uplink's "leave as it is"). The backend remembers
// those; a fresh instance reports the kernel's own form, and applying the wanted
// value once makes the two agree.
package linux
