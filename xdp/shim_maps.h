//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 */
/* The shim's maps and what is in them. tables.go and shim.go know the layouts. */
#ifndef SIDEWINDER_SHIM_MAPS_H
#define SIDEWINDER_SHIM_MAPS_H

#include "bpf_defs.h"

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

#endif
