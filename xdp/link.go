package xdp

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
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
	s := &Shim{linkIndex: link.Index, linkName: link.Name, programID: link.Xdp.ProgId}
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(s.programID))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fail(ErrNoShim) // detached since
	}
	if err != nil {
		return nil, fail(fmt.Errorf("open XDP program %d: %w", s.programID, err))
	}
	defer func() { _ = program.Close() }()
	info, err := program.Info()
	if err != nil {
		return nil, fail(fmt.Errorf("XDP program %d: %w", s.programID, err))
	}
	foreign := fail(fmt.Errorf("program %d %q: %w", s.programID, info.Name, ErrForeignProgram))
	if info.Name != shimProgSidewinderShim {
		return nil, foreign
	}
	ids, ok := info.MapIDs()
	if !ok {
		return nil, fail(fmt.Errorf("%w: the kernel does not tell a program's maps", ErrUnsupported))
	}
	if err := s.maps.open(ids); err != nil {
		_ = s.maps.Close()
		if errors.Is(err, errOtherMaps) {
			return nil, foreign
		}
		return nil, fail(fmt.Errorf("maps of XDP program %d: %w", s.programID, err))
	}
	return s, nil
}

var errOtherMaps = errors.New("not the shim's maps")

// open fills m with the maps that a program uses, by their names.
func (m *shimMaps) open(ids []ebpf.MapID) error {
	for _, id := range ids {
		opened, err := ebpf.NewMapFromID(id)
		if err != nil {
			return fmt.Errorf("map %d: %w", id, err)
		}
		place := m.place(opened)
		if place == nil || *place != nil {
			_ = opened.Close()
			continue
		}
		*place = opened
	}
	if slices.Contains([]*ebpf.Map{m.Cache, m.Counters, m.Flows, m.Settings, m.Tables, m.XsksMap}, nil) {
		return errOtherMaps
	}
	return nil
}

func (m *shimMaps) place(opened *ebpf.Map) **ebpf.Map {
	info, err := opened.Info()
	if err != nil {
		return nil
	}
	switch info.Name {
	case shimMapCache:
		return &m.Cache
	case shimMapCounters:
		return &m.Counters
	case shimMapFlows:
		return &m.Flows
	case shimMapSettings:
		return &m.Settings
	case shimMapTables:
		return &m.Tables
	case shimMapXsksMap:
		return &m.XsksMap
	}
	return nil
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
		s.attachFlags = mode
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

func (s *Shim) load() error {
	var o shimObjects
	if err := loadShimObjects(&o, nil); err != nil {
		return fmt.Errorf("load the XDP shim: %w", err)
	}
	s.program, s.maps = o.SidewinderShim, o.shimMaps
	info, err := s.program.Info()
	if err != nil {
		_ = s.Close()
		return err
	}
	if id, ok := info.ID(); ok {
		s.programID = uint32(id)
	}
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
	return s.wrap("detach", netlink.LinkSetXdpFdWithFlags(link, -1, s.attachFlags))
}
