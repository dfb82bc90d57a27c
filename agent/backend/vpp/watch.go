package vpp

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// links are the kernel's links that VPP has, by index, as they were when they
// were last looked at: what the kernel tells afterwards is compared with that.
// Nothing else depends on it.
type links struct {
	mu   sync.Mutex
	seen map[int]linkInfo
}

func (s *links) note(l linkInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[int]linkInfo{}
	}
	s.seen[l.index] = l
}

func (s *links) forget(index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, index)
}

// changed: the kernel tells something new of a link that VPP has. It is told
// once: the link is looked at next.
func (s *links) changed(u netlink.LinkUpdate) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	index := int(u.Index)
	seen, ok := s.seen[index]
	if !ok {
		return false
	}
	if u.Header.Type == unix.RTM_DELLINK {
		delete(s.seen, index)
		return true
	}
	now := infoOf(u.Link)
	s.seen[index] = now
	return now != seen
}

// infoOf is what is of interest of a link.
func infoOf(l netlink.Link) linkInfo {
	a := l.Attrs()
	info := linkInfo{name: a.Name, index: a.Index, mtu: a.MTU, up: a.Flags&net.FlagUp != 0}
	copy(info.mac[:], a.HardwareAddr)
	if a.Xdp != nil && a.Xdp.Attached {
		info.program = a.Xdp.ProgId
	}
	return info
}

// follow calls changed whenever a link that VPP has has changed in the kernel:
// its address, MTU, state, name, or XDP program. subscribed is the first
// subscription.
func (s *links) follow(ctx context.Context, subscribed <-chan netlink.LinkUpdate, changed func(), warn func(error)) {
	const pause = time.Second
	for {
		for u := range subscribed {
			if s.changed(u) {
				changed()
			}
		}
		// The subscription ended: with ctx, or as events were lost.
		for subscribed = nil; subscribed == nil; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			next, err := subscribe(ctx)
			if err != nil {
				warn(err)
				continue
			}
			subscribed = next
			changed()
		}
	}
}

// subscribe asks the kernel, in the calling thread's network namespace, for news
// of links until ctx ends.
func subscribe(ctx context.Context) (<-chan netlink.LinkUpdate, error) {
	const buffer = 1 << 20
	ch := make(chan netlink.LinkUpdate, 64)
	err := netlink.LinkSubscribeWithOptions(ch, ctx.Done(), netlink.LinkSubscribeOptions{ReceiveBufferSize: buffer})
	if err != nil {
		return nil, fmt.Errorf("subscribing to the kernel's links: %w", err)
	}
	return ch, nil
}

// noteLink remembers the link as it is now, that of a pod or an uplink which VPP
// was just seen with or given.
func (b *Backend) noteLink(name string, role dataplane.InterfaceRole) {
	if role != dataplane.RolePod && role != dataplane.RoleUplink {
		return
	}
	if l, err := findLink(name); err == nil {
		b.links.note(l)
	}
}
