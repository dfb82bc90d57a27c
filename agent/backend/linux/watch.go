package linux

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watchGroups are the notifications that can concern objects of ours.
var watchGroups = []uint{
	unix.RTNLGRP_LINK,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_NEIGH, unix.RTNLGRP_NEXTHOP,
}

// watchBuffer is the socket's receive buffer in bytes; when it overflows all the
// same, that counts as an event.
const watchBuffer = 1 << 20

// Watch signals that others changed an object of ours, or an interface that ours
// depend on: the caller then compares a Dump with what it wants. Events are
// coalesced: the channel holds at most one signal. It is closed when ctx ends or
// the kernel's notifications can no longer be read.
func (b *Backend) Watch(ctx context.Context) (<-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.closed(); err != nil {
		return nil, err
	}
	var sock *nl.NetlinkSocket
	err := b.thread.do(func() (err error) {
		sock, err = nl.Subscribe(unix.NETLINK_ROUTE, watchGroups...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("subscribing to kernel notifications: %w", err)
	}
	if err := sock.SetReceiveBufferSize(watchBuffer, false); err != nil {
		b.log.WithError(err).Debug("the receive buffer for kernel notifications stays as it is")
	}
	w := &watcher{b: b, port: b.conn.port, links: map[int]link{}, out: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
		case <-done:
		}
		sock.Close()
	}()
	go func() {
		defer close(w.out)
		defer close(done)
		w.run(ctx, sock)
	}()
	return w.out, nil
}

// watcher filters notifications.
type watcher struct {
	b    *Backend
	port uint32
	// links is the last that was heard of each, by index: the kernel repeats
	// itself.
	links map[int]link
	out   chan struct{}
}

func (w *watcher) run(ctx context.Context, sock *nl.NetlinkSocket) {
	for {
		msgs, from, err := sock.Receive()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, unix.ENOBUFS):
			w.signal() // some were lost
			continue
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			w.b.log.WithError(err).Error("kernel notifications can no longer be read; changes by others are found at the next resync only")
			return
		case from.Pid != nl.PidKernel:
			continue
		}
		for _, m := range msgs {
			if m.Header.Pid != w.port && w.concerns(m.Header.Type, m.Data) {
				w.signal()
			}
		}
	}
}

func (w *watcher) signal() {
	select {
	case w.out <- struct{}{}:
	default:
	}
}

// concerns reports whether the event touches an object of ours.
func (w *watcher) concerns(kind uint16, b []byte) bool {
	switch kind {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return len(b) >= unix.SizeofRtMsg && b[5] == Protocol
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		if len(b) < sizeofNhMsg {
			return false
		}
		_, ours := parseNexthop(b)
		return ours
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, err := parseAddress(b)
		return err == nil && a.protocol == Protocol
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, err := parseNeighbour(b)
		return err == nil && n.protocol == Protocol
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, err := parseLink(b)
		if err != nil || b[0] != unix.AF_UNSPEC { // a bridge's own news
			return false
		}
		return w.link(kind, *l)
	}
	return false
}

// link reports news of an interface that matters: one of ours, or one that was
// asked for.
func (w *watcher) link(kind uint16, l link) bool {
	before, known := w.links[l.index]
	delete(w.links, l.index)
	if kind == unix.RTM_NEWLINK {
		w.links[l.index] = l
	}
	if kind == unix.RTM_NEWLINK && known && before == l {
		return false
	}
	return l.alias == PodAlias || before.alias == PodAlias || w.b.isWatched(l.name) || w.b.isWatched(before.name)
}

func (b *Backend) watch(name string) {
	b.watchMu.Lock()
	defer b.watchMu.Unlock()
	b.watched[name] = true
}

// unwatch forgets an interface, unless it is an uplink.
func (b *Backend) unwatch(name string) {
	b.watchMu.Lock()
	defer b.watchMu.Unlock()
	for _, u := range b.uplinks {
		if u == name {
			return
		}
	}
	delete(b.watched, name)
}

func (b *Backend) isWatched(name string) bool {
	b.watchMu.Lock()
	defer b.watchMu.Unlock()
	return b.watched[name]
}
