//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 */
/* Prefix tables, and the memory of the connections that the kernel carries. */
#ifndef SIDEWINDER_SHIM_LOOKUP_H
#define SIDEWINDER_SHIM_LOOKUP_H

#include "shim_maps.h"
#include "shim_packet.h"

/* One of the prefix tables, with the cache before it. */
struct lookup {
	void *table;
	void *cache;
	__u32 tag;
};

static __always_inline int lookup_in(__u32 table, struct lookup *l)
{
	__u32 zero = 0;
	l->table = bpf_map_lookup_elem(&tables, &table);
	if (!l->table)
		return 0;
	l->cache = bpf_map_lookup_elem(&cache, &zero);
	if (l->cache) {
		struct cached *generation = bpf_map_lookup_elem(l->cache, &zero);
		/* Read before the table: what is remembered is never newer
		 * than it says. */
		if (generation)
			l->tag = generation->tag + table;
	}
	return 1;
}

static __always_inline __u32 verdict(const struct lookup *l, const struct lpm_key *key)
{
	const __u32 *a = key->addr;
	struct cached *c = 0;
	__u32 *found, v;

	if (l->cache) {
		__u64 mixed = ((__u64)(a[0] ^ a[2]) << 32 | (a[1] ^ a[3])) * 0x9e3779b97f4a7c15ULL;
		__u32 place = 1 + (__u32)(mixed >> (64 - CACHE_BITS));
		c = bpf_map_lookup_elem(l->cache, &place);
		if (c && c->tag == l->tag && c->addr[3] == a[3] && c->addr[2] == a[2] && c->addr[1] == a[1] &&
		    c->addr[0] == a[0])
			return c->verdict;
	}
	found = bpf_map_lookup_elem(l->table, key);
	v = found ? *found : VERDICT_NONE;
	if (c) {
		copy6(c->addr, a);
		c->verdict = v;
		c->tag = l->tag;
	}
	return v;
}

static __always_inline __u64 timeout(__u8 proto)
{
	return proto == IPPROTO_UDP ? TIMEOUT_UDP : TIMEOUT_STREAM;
}

/* Whether a flow is worth the write that puts its end off. */
static __always_inline int stale(const struct flow *f, __u64 now, __u64 t)
{
	return f->expires < now + t - t / 8;
}

/* Whether the kernel carries what this end is part of; a packet to this end
 * keeps it (touch), as it does in the kernel's connection tracking. */
static __always_inline int kernel_flow(void *table, const struct flow_key *key, int touch)
{
	struct flow *f = bpf_map_lookup_elem(table, key);
	if (!f || (f->state & FLOW_SERVER))
		return 0;
	__u64 now = bpf_ktime_get_coarse_ns();
	if (f->expires <= now)
		return 0;
	if (touch && !f->state && stale(f, now, timeout(key->proto)))
		f->expires = now + timeout(key->proto);
	return 1;
}

static __always_inline void insert(void *table, const struct flow_key *key, __u64 expires, __u32 state)
{
	struct flow f = {.expires = expires, .state = state};
	bpf_map_update_elem(table, key, &f, BPF_ANY);
}

/* Remembers that the pod's end of this packet, which stays in the kernel, is
 * part of a connection that the kernel carries. */
static __always_inline void record(void *table, const struct packet *p)
{
	struct flow_key key = p->from.flow;
	__u8 flags = p->tcp_flags;
	__u64 now = bpf_ktime_get_coarse_ns();
	__u64 expires = now + timeout(key.proto);
	struct flow *f;

	if (p->fragment)
		key.port = p->first_port;
	f = bpf_map_lookup_elem(table, &key);
	if (f && f->expires > now) {
		if (flags & TCP_SYN) {
			/* SYN, ACK comes from a port that listens, and SYN from
			 * one that does not. */
			__u32 state = flags & TCP_ACK ? FLOW_SERVER : 0;
			if (f->state == state && !stale(f, now, timeout(key.proto)))
				return;
			f->state = state;
			f->expires = expires;
		} else if (flags & (TCP_FIN | TCP_RST)) {
			if (!f->state) {
				f->state = FLOW_CLOSING;
				f->expires = now + TIMEOUT_CLOSING;
			}
			return;
		} else if (f->state == FLOW_CLOSING) {
			/* Another connection of the port has data. */
			if (!(flags & TCP_PSH))
				return;
			f->state = 0;
			f->expires = expires;
		} else {
			if (!stale(f, now, timeout(key.proto)))
				return;
			f->expires = expires;
		}
		if (f->state & FLOW_SERVER)
			return;
	} else {
		__u32 state = 0;
		if (flags & TCP_RST)
			return;
		if ((flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK))
			state = FLOW_SERVER;
		else if (flags & TCP_FIN)
			state = FLOW_CLOSING;
		insert(table, &key, state == FLOW_CLOSING ? now + TIMEOUT_CLOSING : expires, state);
		if (state == FLOW_SERVER)
			return;
	}
	if (key.port) {
		key.port = 0;
		insert(table, &key, expires, 0);
	}
}

#endif
