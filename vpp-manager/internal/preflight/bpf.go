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

	"github.com/sidewinder-net/sidewinder/xdp"
)

// tryXDP attaches the shim to a link.
func tryXDP(index int) error {
	shim, err := xdp.Attach(index)
	if err != nil {
		return err
	}
	l, err := netlink.LinkByIndex(index)
	if err == nil && (l.Attrs().Xdp == nil || l.Attrs().Xdp.AttachMode != nl.XDP_ATTACHED_DRV) {
		err = errors.New("veth has no native mode, only the generic one")
	}
	return errors.Join(err, shim.Detach(), shim.Close())
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

// programName is any XDP program's name; empty when it has none, or when this
// process may not ask. Package xdp opens the shim only.
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
