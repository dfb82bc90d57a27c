//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 */
/* What the shim reads of a packet, with everything that may be wrong with it. */
#ifndef SIDEWINDER_SHIM_PACKET_H
#define SIDEWINDER_SHIM_PACKET_H

#include "shim_maps.h"

/* What the shim reads of an IP packet. */
struct packet {
	/* Source and destination. Of an ICMP error, protocol and ports are those
	 * of the connection that it tells of. */
	union end from, to;
	__u16 first_port; /* source port of a first fragment, else 0 */
	__u8 ports;	  /* the ends have ports, or port 0 for a fragment */
	__u8 record;	  /* when it stays in the kernel, from is to be remembered */
	__u8 tcp_flags;	  /* of TCP packets that have them */
	__u8 fragment;
};

static __always_inline void copy6(__u32 *to, const __u32 *addr)
{
	to[0] = addr[0];
	to[1] = addr[1];
	to[2] = addr[2];
	to[3] = addr[3];
}

static __always_inline void map4(__u32 *to, __u32 addr)
{
	to[0] = 0;
	to[1] = 0;
	to[2] = bpf_htonl(0xffff);
	to[3] = addr;
}

/* The shortest header of a protocol that has ports, 0 for the others. */
static __always_inline __u32 ports_need(__u8 proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		return 20;
	case IPPROTO_UDP:
		return 8;
	case IPPROTO_SCTP:
		return 12;
	}
	return 0;
}

/* Fills the keys of flows. l4 is what comes after the IP header and its
 * fragment header, len bytes of it. later: a fragment that is not the first. */
static __always_inline int parse_ports(void *l4, void *end, __u32 len, __u8 proto, int later, struct packet *p)
{
	__u32 need = ports_need(proto);
	struct tcphdr *h = l4;

	p->from.flow.proto = proto;
	p->to.flow.proto = proto;
	if (!need)
		return COUNT_VPP;
	p->ports = 1;
	p->record = 1;
	if (later)
		return COUNT_VPP;
	if (len < need || l4 + 8 > end)
		return COUNT_MALFORMED;
	if (p->fragment) {
		p->first_port = h->source;
	} else {
		p->from.flow.port = h->source;
		p->to.flow.port = h->dest;
	}
	if (proto == IPPROTO_TCP) {
		if ((void *)(h + 1) > end)
			return COUNT_MALFORMED;
		p->tcp_flags = h->flags;
	}
	return COUNT_VPP;
}

/* An ICMP error belongs to the connection of the packet that it quotes: the
 * quoted source is the one it goes to. */
static __always_inline void quoted(void *l4, void *end, __u8 proto, struct packet *p)
{
	struct tcphdr *h = l4;
	if (!ports_need(proto) || l4 + 4 > end)
		return;
	p->from.flow.proto = proto;
	p->to.flow.proto = proto;
	p->from.flow.port = h->dest;
	p->to.flow.port = h->source;
	p->ports = 1;
}

static __always_inline void quoted4(void *l4, void *end, struct packet *p)
{
	__u8 *type = l4;
	struct iphdr *h = l4 + 8;
	if ((void *)(h + 1) > end)
		return;
	switch (*type) {
	case 3: /* destination unreachable */
	case 4: /* source quench */
	case 5: /* redirect */
	case 11: /* time exceeded */
	case 12: /* parameter problem */
		break;
	default:
		return;
	}
	__u32 ihl = (h->version_ihl & 15) * 4;
	if (h->version_ihl >> 4 != 4 || ihl < 20 || (h->frag_off & bpf_htons(0x1fff)))
		return;
	quoted((void *)h + ihl, end, h->protocol, p);
}

static __always_inline void quoted6(void *l4, void *end, struct packet *p)
{
	__u8 *type = l4;
	struct ipv6hdr *h = l4 + 8;
	if ((void *)(h + 1) > end)
		return;
	if (*type >= 128 || h->version_class >> 4 != 6)
		return;
	quoted(h + 1, end, h->nexthdr, p);
}

/* Reads an IPv4 packet of at most room bytes. COUNT_VPP: nothing speaks against
 * VPP; else what does. */
static __always_inline int parse4(void *ip, void *end, __u32 room, struct packet *p)
{
	struct iphdr *h = ip;
	if ((void *)(h + 1) > end || room < sizeof(*h))
		return COUNT_MALFORMED;
	__u32 ihl = (h->version_ihl & 15) * 4;
	__u32 total = bpf_ntohs(h->total_len);
	if (h->version_ihl >> 4 != 4 || ihl < sizeof(*h) || total < ihl || total > room)
		return COUNT_MALFORMED;
	if ((h->daddr & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) || h->daddr == 0xffffffff)
		return COUNT_MULTICAST;
	p->from.prefixlen = 128;
	p->to.prefixlen = 128;
	map4(p->from.flow.addr, h->saddr);
	map4(p->to.flow.addr, h->daddr);
	p->fragment = !!(h->frag_off & bpf_htons(0x3fff));
	int later = !!(h->frag_off & bpf_htons(0x1fff));
	if (ihl != sizeof(*h)) {
		int why = parse_ports(ip + ihl, end, total - ihl, h->protocol, later, p);
		return why == COUNT_VPP ? COUNT_OPTIONS : why;
	}
	int why = parse_ports(h + 1, end, total - ihl, h->protocol, later, p);
	if (h->protocol == IPPROTO_ICMP && !p->fragment)
		quoted4(h + 1, end, p);
	return why;
}

static __always_inline int extension(__u8 nexthdr)
{
	switch (nexthdr) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
	case IPPROTO_HIP:
	case IPPROTO_SHIM6:
		return 1;
	}
	return 0;
}

/* parse4 for IPv6. */
static __always_inline int parse6(void *ip, void *end, __u32 room, struct packet *p)
{
	struct ipv6hdr *h = ip;
	if ((void *)(h + 1) > end || room < sizeof(*h))
		return COUNT_MALFORMED;
	__u32 len = bpf_ntohs(h->payload_len);
	if (h->version_class >> 4 != 6 || len + sizeof(*h) > room)
		return COUNT_MALFORMED;
	if (*(__u8 *)h->daddr == 0xff)
		return COUNT_MULTICAST;
	p->from.prefixlen = 128;
	p->to.prefixlen = 128;
	copy6(p->from.flow.addr, h->saddr);
	copy6(p->to.flow.addr, h->daddr);
	if (h->nexthdr == IPPROTO_FRAGMENT) {
		struct fraghdr *f = (void *)(h + 1);
		if (len < sizeof(*f) || (void *)(f + 1) > end)
			return COUNT_MALFORMED;
		if (extension(f->nexthdr))
			return COUNT_OPTIONS;
		p->fragment = 1;
		return parse_ports(f + 1, end, len - sizeof(*f), f->nexthdr, !!(f->frag_off & bpf_htons(0xfff8)), p);
	}
	if (extension(h->nexthdr))
		return COUNT_OPTIONS;
	int why = parse_ports(h + 1, end, len, h->nexthdr, 0, p);
	if (h->nexthdr == IPPROTO_ICMPV6)
		quoted6(h + 1, end, p);
	return why;
}

#endif
