//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The XDP shim: for each packet that arrives on an uplink or from a pod, does
 * VPP get it or the kernel? It never changes and never drops a packet. The
 * package comment in doc.go is its specification, model_test.go says the same in Go,
 * and the tests hold the two against each other.
 *
 * The names of the maps are a contract: VPP's af_xdp plugin looks for
 * xsks_map, and the Go side for all of them.
 */
#include "shim_maps.h"
#include "shim_packet.h"
#include "shim_lookup.h"

char LICENSE[] SEC("license") = "Apache-2.0";

static __always_inline int pass(__u32 counter)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &counter);
	if (n)
		(*n)++;
	return XDP_PASS;
}

static __always_inline int redirect(struct xdp_md *ctx)
{
	/* XDP_PASS is what it returns when the queue has no socket. */
	int action = bpf_redirect_map(&xsks_map, ctx->rx_queue_index, XDP_PASS);
	__u32 counter = action == XDP_REDIRECT ? COUNT_VPP : COUNT_NO_SOCKET;
	__u64 *n = bpf_map_lookup_elem(&counters, &counter);
	if (n)
		(*n)++;
	return action;
}

/* A packet from a pod. */
static __always_inline int pod(void *ip, void *end, __u16 proto)
{
	struct packet p = {};
	__u32 room = end - ip;
	int why = proto == bpf_htons(ETH_P_IP) ? parse4(ip, end, room, &p) : parse6(ip, end, room, &p);
	if (why != COUNT_VPP && why != COUNT_OPTIONS)
		return why;

	struct lookup pods = {};
	__u32 slot = 0;
	if (why == COUNT_VPP && (!lookup_in(TABLE_POD, &pods) || verdict(&pods, &p.to.prefix) != VERDICT_VPP))
		why = COUNT_KERNEL_TABLE;
	if (!p.ports)
		return why;
	void *known = bpf_map_lookup_elem(&flows, &slot);
	if (!known)
		return why;
	if (why != COUNT_VPP) {
		if (p.record)
			record(known, &p);
		return why;
	}
	/* Both ways of a connection go the same way: the kernel's connection
	 * tracking must see both or none. */
	if (kernel_flow(known, &p.to.flow, 1) || kernel_flow(known, &p.from.flow, 0))
		return COUNT_KERNEL_FLOW;
	return COUNT_VPP;
}

/* The packet inside of one to a SID of VPP's. */
static __always_inline int inner(void *ip, void *end, __u32 room, __u8 nexthdr)
{
	struct packet p = {};
	int why;
	if (nexthdr == IPPROTO_IPIP)
		why = parse4(ip, end, room, &p);
	else if (nexthdr == IPPROTO_IPV6)
		why = parse6(ip, end, room, &p);
	else
		return COUNT_KERNEL_INNER;
	if (why != COUNT_VPP)
		return why;

	struct lookup pods = {};
	__u32 slot = 0;
	/* The source too: where the answer goes through the kernel, its
	 * connection tracking has to see the question. */
	if (!lookup_in(TABLE_POD, &pods) || verdict(&pods, &p.to.prefix) != VERDICT_VPP ||
	    verdict(&pods, &p.from.prefix) != VERDICT_VPP)
		return COUNT_KERNEL_INNER;
	if (!p.ports)
		return COUNT_VPP;
	void *known = bpf_map_lookup_elem(&flows, &slot);
	if (known && kernel_flow(known, &p.to.flow, 1))
		return COUNT_KERNEL_FLOW;
	return COUNT_VPP;
}

/* A packet that arrives on an uplink. */
static __always_inline int uplink(void *ip, void *end, __u16 proto)
{
	struct ipv6hdr *h = ip;
	struct lpm_key dst = {.prefixlen = 128};
	struct lookup sids = {};

	if (proto != bpf_htons(ETH_P_IPV6))
		return COUNT_KERNEL_TABLE;
	if ((void *)(h + 1) > end)
		return COUNT_MALFORMED;
	__u32 len = bpf_ntohs(h->payload_len);
	if (h->version_class >> 4 != 6 || len + sizeof(*h) > (__u32)(end - ip))
		return COUNT_MALFORMED;
	if (*(__u8 *)h->daddr == 0xff)
		return COUNT_MULTICAST;
	if (h->nexthdr == IPPROTO_HOPOPTS)
		return COUNT_OPTIONS;
	if (!lookup_in(TABLE_UPLINK, &sids))
		return COUNT_KERNEL_TABLE;
	copy6(dst.addr, h->daddr);
	__u32 v = verdict(&sids, &dst);
	if (v == VERDICT_VPP)
		return COUNT_VPP;
	if (v != VERDICT_VPP_INNER)
		return COUNT_KERNEL_TABLE;

	__u8 nexthdr = h->nexthdr;
	void *in = h + 1;
	if (nexthdr == IPPROTO_FRAGMENT)
		return COUNT_FRAGMENT;
	if (nexthdr == IPPROTO_ROUTING) {
		struct rthdr *r = in;
		if (len < sizeof(*r) || (void *)(r + 1) > end)
			return COUNT_MALFORMED;
		__u32 size = ((__u32)r->hdrlen + 1) * 8;
		if (size > len)
			return COUNT_MALFORMED;
		/* RFC 8754. The SID is to be the last segment, or it is not
		 * the end of the path. */
		if (r->type != 4 || r->segments_left)
			return COUNT_OPTIONS;
		nexthdr = r->nexthdr;
		in += size;
		len -= size;
	}
	if (extension(nexthdr))
		return COUNT_OPTIONS;
	return inner(in, end, len, nexthdr);
}

static __always_inline __u32 setting(__u32 which)
{
	__u32 *v = bpf_map_lookup_elem(&settings, &which);
	return v ? *v : 0;
}

SEC("xdp")
int sidewinder_shim(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u32 mode = setting(SETTING_MODE);
	__u32 role = setting(SETTING_ROLE);
	int why;

	/* A pod's packets are read in kernel mode too: connections that begin
	 * there must be known when VPP takes over. */
	if (role != ROLE_POD && (role != ROLE_UPLINK || mode != MODE_VPP))
		return pass(COUNT_KERNEL_MODE);
	if ((void *)(eth + 1) > end)
		return pass(COUNT_MALFORMED);
	if (eth->proto == bpf_htons(ETH_P_8021Q) || eth->proto == bpf_htons(ETH_P_8021AD))
		why = COUNT_VLAN;
	else if (eth->proto != bpf_htons(ETH_P_IP) && eth->proto != bpf_htons(ETH_P_IPV6))
		why = COUNT_NOT_IP;
	else if (eth->dst[0] & 1)
		why = COUNT_MULTICAST;
	else if (role == ROLE_UPLINK)
		why = uplink(eth + 1, end, eth->proto);
	else
		why = pod(eth + 1, end, eth->proto);
	if (mode != MODE_VPP)
		why = COUNT_KERNEL_MODE;
	return why == COUNT_VPP ? redirect(ctx) : pass(why);
}
