//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The XDP shim: for each packet that arrives on an uplink or from a pod, does
 * VPP get it or the kernel? It never changes and never drops a packet. The
 * package comment in doc.go is its specification, model.go says the same in Go,
 * and the tests hold the two against each other.
 *
 * The names of the maps are a contract: VPP's af_xdp plugin looks for
 * xsks_map, and the Go side for all of them.
 */
#include "bpf_defs.h"

char LICENSE[] SEC("license") = "Apache-2.0";

/* Which way a packet went, and why. */
enum counter {
	COUNT_VPP,	     /* redirected to VPP */
	COUNT_NO_SOCKET,     /* meant for VPP, which has no socket on this queue */
	COUNT_KERNEL_MODE,   /* the interface's mode or role is not one that redirects */
	COUNT_KERNEL_TABLE,  /* the destination is not VPP's */
	COUNT_KERNEL_INNER,  /* for a SID of VPP's, the inner packet is not VPP's */
	COUNT_KERNEL_FLOW,   /* belongs to a connection that the kernel carries */
	COUNT_NOT_IP,	     /* ARP, LLDP, ... */
	COUNT_VLAN,	     /* with a VLAN tag */
	COUNT_MULTICAST,     /* multicast or broadcast, at layer 2 or 3 */
	COUNT_OPTIONS,	     /* IPv4 options or IPv6 extension headers */
	COUNT_FRAGMENT,	     /* the outer packet to a SID is a fragment */
	COUNT_MALFORMED,     /* truncated, or lengths and versions that contradict */
	COUNTERS,
};

enum setting { SETTING_MODE, SETTING_ROLE, SETTINGS };
enum mode { MODE_KERNEL, MODE_VPP, MODE_HELD };
enum role { ROLE_NONE, ROLE_UPLINK, ROLE_POD };
enum table { TABLE_UPLINK, TABLE_POD, TABLES };
enum verdict { VERDICT_NONE, VERDICT_VPP, VERDICT_VPP_INNER, VERDICT_KERNEL };

/* The key of the prefix tables. IPv4 addresses are v4-mapped IPv6 addresses. */
struct lpm_key {
	__u32 prefixlen;
	__u32 addr[4];
};

/* The key of flows: a pod's end of the connections that the kernel carries.
 * Port 0: it has some (for fragments, which do not all have ports). */
struct flow_key {
	__u32 addr[4];
	__u16 port;
	__u8 proto;
	__u8 zero;
};

/* Both keys, one upon the other: what a packet says of one of its ends. */
union end {
	struct lpm_key prefix;
	struct {
		__u32 prefixlen;
		struct flow_key flow;
	};
};

enum flow_state {
	FLOW_SERVER = 1,  /* the pod listens on this port: nothing of the kernel's to undo */
	FLOW_CLOSING = 2, /* the pod has sent FIN or RST */
};

struct flow {
	__u64 expires; /* CLOCK_MONOTONIC, ns */
	__u32 state;
	__u32 zero;
};

#define SECOND 1000000000ULL
/* As long as nf_conntrack's defaults, at least: what it forgets, nothing of
 * the kernel's can be undone for. */
#define TIMEOUT_STREAM (432000 * SECOND)
#define TIMEOUT_UDP (300 * SECOND)
#define TIMEOUT_CLOSING (120 * SECOND)

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} xsks_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SETTINGS);
	__type(key, __u32);
	__type(value, __u32);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct lpm_table {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct lpm_key));
	__uint(value_size, sizeof(__u32));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, TABLES);
	__type(key, __u32);
	__array(values, struct lpm_table);
} tables SEC(".maps");

struct flow_table {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct flow_key));
	__uint(value_size, sizeof(struct flow));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct flow_table);
} flows SEC(".maps");

/*
 * A longest-prefix match among thousands of prefixes costs some 200 ns. What it
 * found is remembered for each CPU, by address, until a table changes: then the
 * Go side raises the generation, and no entry's tag fits any more.
 */
#define CACHE_BITS 12

struct cached {
	__u32 addr[4];
	__u32 tag; /* generation + enum table; 0: empty */
	__u32 verdict;
};

/* Entry 0 has the generation as its tag: an even number from 2 on. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
		__uint(max_entries, 1 + (1 << CACHE_BITS));
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct cached));
	});
} cache SEC(".maps");

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

static __always_inline void copy6(__u32 *to, const __u32 *addr)
{
	to[0] = addr[0];
	to[1] = addr[1];
	to[2] = addr[2];
	to[3] = addr[3];
}

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
