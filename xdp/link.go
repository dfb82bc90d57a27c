package xdp

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Find opens the shim of a link of this network namespace. The error is
// ErrNoShim when no XDP program is there, ErrForeignProgram when it is another
// one. It needs CAP_SYS_ADMIN: the kernel asks that of whoever opens a program
// by its number.
func Find(ifindex int) (*Shim, error) {
	link, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return nil, fmt.Errorf("link %d: %w", ifindex, err)
	}
	return open(link.Attrs())
}

// FindAll opens the shims of all links of this network namespace, by link index.
// Links without a program or with a foreign one are left out. Where some of them
// cannot be opened, the others are returned together with the error.
func FindAll() ([]*Shim, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var shims []*Shim
	var errs []error
	for _, link := range links {
		s, err := open(link.Attrs())
		switch {
		case err == nil:
			shims = append(shims, s)
		case !errors.Is(err, ErrNoShim) && !errors.Is(err, ErrForeignProgram):
			errs = append(errs, err)
		}
	}
	slices.SortFunc(shims, func(a, b *Shim) int { return a.linkIndex - b.linkIndex })
	return shims, errors.Join(errs...)
}

func open(link *netlink.LinkAttrs) (*Shim, error) {
	fail := func(err error) error { return fmt.Errorf("link %s: %w", link.Name, err) }
	if link.Xdp == nil || !link.Xdp.Attached || link.Xdp.ProgId == 0 {
		return nil, fail(ErrNoShim)
	}
	s := &Shim{linkIndex: link.Index, linkName: link.Name, programID: link.Xdp.ProgId, native: link.Xdp.AttachMode == nl.XDP_ATTACHED_DRV}
	name, ids, err := programInfo(s.programID)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fail(ErrNoShim) // detached since
	}
	if err != nil {
		return nil, fail(err)
	}
	foreign := fail(fmt.Errorf("program %d %q: %w", s.programID, name, ErrForeignProgram))
	if name != shimProgSidewinderShim {
		return nil, foreign
	}
	if err := s.openMaps(ids); errors.Is(err, errOtherMaps) {
		return nil, foreign
	} else if errors.Is(err, os.ErrNotExist) {
		return nil, fail(ErrNoShim) // detached since, and its maps are gone with it
	} else if err != nil {
		return nil, fail(fmt.Errorf("program %d: %w", s.programID, err))
	}
	return s, nil
}

var errOtherMaps = errors.New("not the shim's maps")

// openMaps finds the shim's maps, by name, among those of a program.
func (s *Shim) openMaps(ids []uint32) (err error) {
	names := map[string]int{
		shimMapCache: mapCache, shimMapCounters: mapCounters, shimMapFlows: mapFlows,
		shimMapTables: mapTables, shimMapXsksMap: mapSockets,
	}
	s.settings = -1
	for _, id := range ids {
		fd, name, err := openMap(id)
		if err != nil {
			return errors.Join(err, s.closeSettings())
		}
		if name == shimMapSettings && s.settings < 0 {
			s.settings = settingsMap(fd)
			continue
		}
		if err := unix.Close(fd); err != nil {
			return errors.Join(err, s.closeSettings())
		}
		if n, ok := names[name]; ok {
			s.maps[n].id = id
			delete(names, name)
		}
	}
	if s.settings < 0 || len(names) > 0 {
		return errors.Join(errOtherMaps, s.closeSettings())
	}
	return nil
}

func (s *Shim) closeSettings() error {
	if s.settings < 0 {
		return nil
	}
	return unix.Close(int(s.settings))
}

// Attach loads the shim and puts it on a link that has no XDP program: what VPP
// does by itself, for where there is no VPP. It takes the driver's own XDP where
// there is that, and the kernel's generic one else. The shim stays after Close
// and after this process; VPP may replace it.
func Attach(ifindex int) (*Shim, error) {
	link, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return nil, fmt.Errorf("link %d: %w", ifindex, err)
	}
	s := &Shim{linkIndex: ifindex, linkName: link.Attrs().Name}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("link %s: %w", s.linkName, err)
	}
	for _, mode := range []int{unix.XDP_FLAGS_DRV_MODE, unix.XDP_FLAGS_SKB_MODE} {
		s.native = mode == unix.XDP_FLAGS_DRV_MODE
		err = netlink.LinkSetXdpFdWithFlags(link, s.program.FD(), unix.XDP_FLAGS_UPDATE_IF_NOEXIST|mode)
		if err == nil || errors.Is(err, unix.EBUSY) {
			break
		}
	}
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("link %s: attach the XDP shim: %w", link.Attrs().Name, err)
	}
	return s, nil
}

// load loads the shim anew, attached to nothing.
func (s *Shim) load() error {
	var o shimObjects
	if err := loadShimObjects(&o, nil); err != nil {
		return fmt.Errorf("load the XDP shim: %w", err)
	}
	// The program keeps its maps.
	defer func() { _ = o.shimMaps.Close() }()
	info, err := o.SidewinderShim.Info()
	if err != nil {
		return errors.Join(err, o.SidewinderShim.Close())
	}
	id, ok := info.ID()
	if !ok {
		return errors.Join(fmt.Errorf("%w: the kernel does not tell a program's number", ErrUnsupported), o.SidewinderShim.Close())
	}
	_, maps, err := programInfo(uint32(id))
	if err == nil {
		err = s.openMaps(maps)
	}
	if err != nil {
		return errors.Join(err, o.SidewinderShim.Close())
	}
	s.program, s.programID = o.SidewinderShim, uint32(id)
	return nil
}

// Detach takes the shim off its link, if it is there still. The Shim is to be
// closed all the same.
func (s *Shim) Detach() error {
	link, err := netlink.LinkByIndex(s.linkIndex)
	if err != nil {
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil
		}
		return s.wrap("detach", err)
	}
	if x := link.Attrs().Xdp; x == nil || !x.Attached || x.ProgId != s.programID {
		return nil
	}
	mode := unix.XDP_FLAGS_SKB_MODE
	if s.native {
		mode = unix.XDP_FLAGS_DRV_MODE
	}
	return s.wrap("detach", netlink.LinkSetXdpFdWithFlags(link, -1, mode))
}
