package linux

import (
	"context"
	"errors"
	"fmt"
	"time"

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
// coalesced: the channel holds at most one signal. It is closed when ctx ends,
// and not before.
func (b *Backend) Watch(ctx context.Context) (<-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.closed(); err != nil {
		return nil, err
	}
	w := &watcher{b: b, thread: b.thread, port: b.conn.port, out: make(chan struct{}, 1)}
	sock, err := w.subscribe()
	if err != nil {
		return nil, err
	}
	// What is there is no news.
	links, err := b.conn.links()
	if err != nil {
		sock.Close()
		return nil, err
	}
	w.links = map[int]link{}
	for index, l := range links.byIndex {
		w.links[index] = *l
	}
	go func() {
		defer close(w.out)
		for ctx.Err() == nil {
			w.read(ctx, sock)
			sock = w.again(ctx)
		}
		if sock != nil {
			sock.Close()
		}
	}()
	return w.out, nil
}

// watcher filters notifications.
type watcher struct {
	b      *Backend
	thread *thread
	port   uint32
	// links is the last that was heard of each, by index: the kernel repeats
	// itself.
	links map[int]link
	out   chan struct{}
}

func (w *watcher) subscribe() (sock *nl.NetlinkSocket, err error) {
	err = w.thread.do(func() (err error) {
		sock, err = nl.Subscribe(unix.NETLINK_ROUTE, watchGroups...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("subscribing to kernel notifications: %w", err)
	}
	if err := sock.SetReceiveBufferSize(watchBuffer, false); err != nil {
		w.b.log.WithError(err).Debug("the receive buffer for kernel notifications stays as it is")
	}
	return sock, nil
}

// watchPause is the time before another try to subscribe.
const watchPause = time.Second

// again subscribes anew after the socket has failed; nil when ctx ends first.
// Whatever was missed meanwhile counts as an event.
func (w *watcher) again(ctx context.Context) *nl.NetlinkSocket {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchPause):
		}
		if sock, err := w.subscribe(); err == nil {
			w.signal()
			return sock
		}
	}
}

// read takes notifications until the socket fails or ctx ends, and closes it.
func (w *watcher) read(ctx context.Context, sock *nl.NetlinkSocket) {
	stop := context.AfterFunc(ctx, sock.Close)
	defer func() {
		if stop() {
			sock.Close()
		}
	}()
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
			w.b.log.WithError(err).Warn("kernel notifications cannot be read; subscribing again")
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
	case unix.RTM_DELADDR: // an addition of ours is announced late, by nobody
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
