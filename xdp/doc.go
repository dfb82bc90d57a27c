// Package xdp is the XDP shim: the program that decides, for each packet that
// arrives on an uplink or from a pod, whether VPP or the kernel gets it; and the
// Go side that finds it on links, fills its tables and reads its counters.
//
// It is the only package that imports cilium/ebpf.
//
// # Life
//
// VPP's af_xdp plugin loads the object (WriteObject) anew for each interface
// that it makes, puts it on the link in place of any other program, and enters
// its sockets in xsks_map. A shim that is loaded anew is harmless: its mode is
// ModeKernel, it has no role and no tables. Bind gives it the node's tables,
// SetMode opens the way. When VPP ends, its sockets go, and what is meant for
// them falls through to the kernel (no-socket); the program stays on the link.
//
// Nothing is pinned. A link leads to its program and a program to its maps, so
// every process of enough rights finds everything: Find, FindAll.
//
// # What goes where
//
// The shim never changes and never drops a packet: it redirects to VPP's socket
// on the packet's queue, or passes to the kernel. VPP gets a packet only if
// everything speaks for it; the kernel, which is the complete path, gets all
// others. Each packet is counted once (Shim.Counters), by the first of these
// lines that fits:
//
//	counter       packet                                               to
//	kernel-mode   mode not ModeVPP, or no role                         kernel
//	malformed     no whole Ethernet header                             kernel
//	vlan          EtherType 802.1Q or 802.1ad                          kernel
//	not-ip        another EtherType than IPv4 and IPv6: ARP, LLDP      kernel
//	multicast     to a multicast or broadcast MAC address              kernel
//
// On an uplink (RoleUplink):
//
//	kernel-table  IPv4                                                 kernel
//	malformed     IPv6 header cut off, wrong version, or its length
//	              beyond the frame (padding after it is fine)          kernel
//	multicast     IPv6 multicast destination                           kernel
//	options       hop-by-hop options                                   kernel
//	vpp           the uplink table says VerdictVPP for the destination
//	              (a locator, a uN or End SID): whatever is inside,
//	              fragments and segment routing headers too            VPP
//	kernel-table  it says VerdictKernel, or nothing                    kernel
//
// and for VerdictVPPInner (End.DT4, End.DT6), by what is inside:
//
//	fragment      a fragment header after the outer header             kernel
//	malformed     a routing header that is cut off                     kernel
//	options       a routing header that is no SRH (RFC 8754) or has
//	              segments left; other extension headers, also after
//	              one SRH                                              kernel
//	kernel-inner  no IPv4 or IPv6 packet inside                        kernel
//	malformed, multicast, options
//	              the inner packet, as from a pod (below)              kernel
//	kernel-inner  the pod table does not say VerdictVPP for both the
//	              inner destination and the inner source               kernel
//	kernel-flow   to an end of a connection that the kernel carries    kernel
//	vpp           else                                                 VPP
//
// From a pod (RolePod):
//
//	malformed     IP header cut off, wrong version, lengths that
//	              contradict, TCP, UDP or SCTP header cut off          kernel
//	multicast     multicast or IPv4 broadcast destination              kernel
//	options       IPv4 options; IPv6 extension headers, but for the
//	              fragment header                                      kernel
//	kernel-table  the pod table does not say VerdictVPP for the
//	              destination                                          kernel
//	kernel-flow   to or from an end of a connection that the kernel
//	              carries                                              kernel
//	vpp           else                                                 VPP
//
// Of what is to go to VPP, no-socket counts the packets whose queue has no
// socket: the kernel gets them.
//
// The inner source counts because the answer would go to it: where the answer
// takes the kernel's path, the kernel's connection tracking must have seen the
// question, or it takes the answer for invalid.
//
// # Connections that the kernel carries
//
// A pod's packet for a service goes to the kernel, which may translate it to
// another pod's address (kube-proxy). The answer then comes from an address that
// the pod never spoke to; only the kernel can undo that. So the shim remembers,
// for each TCP, UDP and SCTP packet from a pod that goes to the kernel for its
// destination or its IPv4 options, (pod address, protocol, port); and what goes
// to or from such an end goes through the kernel as well, on uplinks and between
// pods, in both directions, so that connection tracking sees all or nothing of a
// connection. It does so in ModeKernel too, and the memory outlives VPP and the
// agent (Tables.AdoptFlows).
//
//   - A TCP port that has answered a SYN is a listener's: nothing is remembered
//     for it, so that the kubelet's probes do not take a server away from VPP.
//   - An ICMP error goes where the connection of the packet that it quotes goes.
//   - Fragments have no ports, or must go where those without go: they go by (pod
//     address, protocol), that is to the kernel if the pod has any such
//     connection through the kernel.
//   - TCP and SCTP ends are forgotten 5 days after the last packet, or 2 minutes
//     after the pod's FIN or RST; UDP ends after 5 minutes: not before
//     nf_conntrack does by its defaults. When the memory is full, the least
//     recently used are.
//
// Ends behind IPv6 extension headers, and those whose last packet was before the
// shim came to the link, are not known.
package xdp
