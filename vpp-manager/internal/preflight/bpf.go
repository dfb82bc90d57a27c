package preflight

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The few system calls that are tried here are made directly, as VPP's libbpf
// makes them, so that each answer is the kernel's own.

// bpf is bpf(2). The attributes are in the kernel's layout (linux/bpf.h); those
// that are left out are zero.
func bpf(command int, attr []byte) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// words lays 32-bit numbers out one after the other.
func words(w ...uint32) []byte {
	var b []byte
	for _, v := range w {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

// passProgram loads the smallest XDP program: r0 = XDP_PASS; exit.
func passProgram() (fd int, err error) {
	code := []uint64{0xb7 | 2<<32, 0x95}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return 0, errors.New("not tried on big-endian machines")
	}
	license := append([]byte("GPL"), 0)
	attr := words(unix.BPF_PROG_TYPE_XDP, uint32(len(code)))
	attr = binary.NativeEndian.AppendUint64(attr, uint64(uintptr(unsafe.Pointer(&code[0]))))
	attr = binary.NativeEndian.AppendUint64(attr, uint64(uintptr(unsafe.Pointer(&license[0]))))
	attr = append(attr, make([]byte, 24)...)
	fd, err = bpf(unix.BPF_PROG_LOAD, attr)
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	if err != nil {
		return 0, fmt.Errorf("loading an XDP program: %w", err)
	}
	return fd, nil
}

// tryXDP attaches a program to a link in both modes.
func tryXDP(index int) error {
	fd, err := passProgram()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return err
	}
	for _, mode := range []struct {
		name string
		flag int
	}{{"native", nl.XDP_FLAGS_DRV_MODE}, {"generic", nl.XDP_FLAGS_SKB_MODE}} {
		if err := netlink.LinkSetXdpFdWithFlags(l, fd, mode.flag); err != nil {
			return fmt.Errorf("attaching an XDP program to a veth, %s mode: %w", mode.name, err)
		}
		if err := netlink.LinkSetXdpFdWithFlags(l, -1, mode.flag); err != nil {
			return fmt.Errorf("detaching an XDP program, %s mode: %w", mode.name, err)
		}
	}
	return nil
}

// tryMaps makes one map of each kind that the shim has.
func tryMaps() error {
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	inner := 0
	for _, m := range []struct {
		name                           string
		kind, key, value, flags, count uint32
		nested                         bool
	}{
		{name: "XSKMAP", kind: unix.BPF_MAP_TYPE_XSKMAP, key: 4, value: 4, count: 64},
		{name: "per-CPU array", kind: unix.BPF_MAP_TYPE_PERCPU_ARRAY, key: 4, value: 8, count: 16},
		{name: "LRU hash", kind: unix.BPF_MAP_TYPE_LRU_HASH, key: 20, value: 4, count: 1024},
		{name: "longest-prefix map", kind: unix.BPF_MAP_TYPE_LPM_TRIE, key: 20, value: 4, flags: unix.BPF_F_NO_PREALLOC, count: 1024},
		{name: "array of maps", kind: unix.BPF_MAP_TYPE_ARRAY_OF_MAPS, key: 4, value: 4, count: 2, nested: true},
	} {
		attr := words(m.kind, m.key, m.value, m.count, m.flags)
		if m.nested {
			attr = append(attr, words(uint32(inner))...)
		}
		fd, err := bpf(unix.BPF_MAP_CREATE, attr)
		if err != nil {
			return fmt.Errorf("making a BPF map (%s): %w", m.name, err)
		}
		fds = append(fds, fd)
		inner = fd // the last before the array is the longest-prefix map
	}
	return nil
}

// What VPP's af_xdp asks for: its buffers with their header of 256 bytes, at any
// place (unaligned chunks), rings of 512, need_wakeup.
const (
	vppHeader  = 256
	vppRing    = 512
	vppBuffer  = 2048 + vppHeader
	umemBytes  = 1 << 20
	needWakeup = unix.XDP_USE_NEED_WAKEUP
)

// tryAFXDP binds a socket to queue 0 of a link with VPP's settings.
func tryAFXDP(index int) error {
	mem, err := unix.Mmap(-1, 0, umemBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("AF_XDP, packet memory: %w", err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("AF_XDP socket: %w", err)
	}
	defer unix.Close(fd)
	// struct xdp_umem_reg: addr, len, chunk_size, headroom, flags.
	reg := binary.NativeEndian.AppendUint64(nil, uint64(uintptr(unsafe.Pointer(&mem[0]))))
	reg = binary.NativeEndian.AppendUint64(reg, umemBytes)
	reg = append(reg, words(vppBuffer, vppHeader, unix.XDP_UMEM_UNALIGNED_CHUNK_FLAG, 0)...)
	if err := unix.SetsockoptString(fd, unix.SOL_XDP, unix.XDP_UMEM_REG, string(reg)); err != nil {
		return fmt.Errorf("AF_XDP, registering packet memory with unaligned chunks: %w", err)
	}
	for _, ring := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING, unix.XDP_TX_RING} {
		if err := unix.SetsockoptInt(fd, unix.SOL_XDP, ring, vppRing); err != nil {
			return fmt.Errorf("AF_XDP, rings: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrXDP{Flags: needWakeup, Ifindex: uint32(index)}); err != nil {
		return fmt.Errorf("AF_XDP, binding to a veth with need_wakeup: %w", err)
	}
	return nil
}

// programName is an XDP program's name; empty when it has none, or when this
// process may not ask.
func programName(id uint32) string {
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, words(id, 0, 0))
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	// struct bpf_prog_info; its name is at byte 64.
	info := make([]byte, 128)
	attr := words(uint32(fd), uint32(len(info)))
	attr = binary.NativeEndian.AppendUint64(attr, uint64(uintptr(unsafe.Pointer(&info[0]))))
	_, err = bpf(unix.BPF_OBJ_GET_INFO_BY_FD, attr)
	runtime.KeepAlive(info)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info[64:80])
}
