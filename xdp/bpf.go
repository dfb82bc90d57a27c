package xdp

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The few bpf() calls that finding shims takes, without what cilium/ebpf does
// around them: it also reads /proc for each program and map that it opens, which
// takes ten times as long, and the watchdog has 110 links to turn at once.

func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR, unix.EAGAIN:
		default:
			return -1, errno
		}
	}
}

// fdByID opens a program or a map by its number.
func fdByID(cmd uintptr, id uint32) (int, error) {
	attr := struct{ id, next, flags uint32 }{id: id}
	return bpf(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

func objInfo(fd int, info unsafe.Pointer, size uintptr) error {
	attr := struct {
		fd, size uint32
		info     uint64
	}{uint32(fd), uint32(size), uint64(uintptr(info))}
	_, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// programInfo is the name of a program, and the numbers of its maps.
func programInfo(id uint32) (name string, maps []uint32, err error) {
	fd, err := fdByID(unix.BPF_PROG_GET_FD_BY_ID, id)
	if err != nil {
		return "", nil, fmt.Errorf("open program %d: %w", id, err)
	}
	defer func() { _ = unix.Close(fd) }()
	// The start of struct bpf_prog_info.
	var info struct {
		kind, id   uint32
		tag        [8]byte
		lengths    [2]uint32
		code       [2]uint64
		loadTime   uint64
		uid        uint32
		mapsNumber uint32
		maps       uint64
		name       [16]byte
	}
	ids := make([]uint32, 64)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	pin.Pin(&info)
	info.mapsNumber, info.maps = uint32(len(ids)), uint64(uintptr(unsafe.Pointer(&ids[0])))
	if err := objInfo(fd, unsafe.Pointer(&info), unsafe.Sizeof(info)); err != nil {
		return "", nil, fmt.Errorf("program %d: %w", id, err)
	}
	return unix.ByteSliceToString(info.name[:]), ids[:min(int(info.mapsNumber), len(ids))], nil
}

// openMap opens a map by its number, and says its name.
func openMap(id uint32) (fd int, name string, err error) {
	fd, err = fdByID(unix.BPF_MAP_GET_FD_BY_ID, id)
	if err != nil {
		return -1, "", fmt.Errorf("open map %d: %w", id, err)
	}
	// The start of struct bpf_map_info.
	var info struct {
		kind, id, key, value, entries, flags uint32
		name                                 [16]byte
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info)
	if err := objInfo(fd, unsafe.Pointer(&info), unsafe.Sizeof(info)); err != nil {
		_ = unix.Close(fd)
		return -1, "", fmt.Errorf("map %d: %w", id, err)
	}
	return fd, unix.ByteSliceToString(info.name[:]), nil
}

// settingsMap is the descriptor of a shim's settings map.
type settingsMap int

func (m settingsMap) get(key uint32) (value uint32, err error) {
	err = m.element(unix.BPF_MAP_LOOKUP_ELEM, &key, &value)
	return value, err
}

func (m settingsMap) put(key, value uint32) error {
	return m.element(unix.BPF_MAP_UPDATE_ELEM, &key, &value)
}

func (m settingsMap) element(cmd uintptr, key, value *uint32) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(key)
	pin.Pin(value)
	attr := struct {
		fd, zero          uint32
		key, value, flags uint64
	}{fd: uint32(m), key: uint64(uintptr(unsafe.Pointer(key))), value: uint64(uintptr(unsafe.Pointer(value)))}
	_, err := bpf(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// lazyMap is a map that is opened when it is asked for.
type lazyMap struct {
	id     uint32
	opened *ebpf.Map
}

func (m *lazyMap) get() (*ebpf.Map, error) {
	if m.opened == nil {
		opened, err := ebpf.NewMapFromID(ebpf.MapID(m.id))
		if err != nil {
			return nil, fmt.Errorf("open map %d: %w", m.id, err)
		}
		m.opened = opened
	}
	return m.opened, nil
}

func (m *lazyMap) close() error {
	if m.opened == nil {
		return nil
	}
	return m.opened.Close()
}
