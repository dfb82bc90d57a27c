package linux

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// linux/genetlink.h, linux/seg6_genl.h
const (
	genlCtrl            = 0x10
	genlCtrlGetFamily   = 3
	genlCtrlFamilyID    = 1
	genlCtrlFamilyName  = 2
	seg6Family          = "SEG6"
	seg6Version         = 1
	seg6AttrDst         = 1
	seg6CmdSetTunnelSrc = 3
	seg6CmdGetTunnelSrc = 4
	sizeofGenlMsg       = 4
)

func (c *conn) generic(family, flags int, command, version uint8) message {
	return c.message(family, flags, []byte{command, version, 0, 0})
}

// findSeg6 asks for the id of the generic netlink family of seg6.
func (c *conn) findSeg6() error {
	m := c.generic(genlCtrl, 0, genlCtrlGetFamily, 1)
	m.attr(genlCtrlFamilyName, nl.ZeroTerminated(seg6Family))
	out, err := m.Execute(unix.NETLINK_GENERIC, 0)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("the kernel has no segment routing over IPv6: %w", dataplane.ErrUnsupported)
	}
	if err != nil {
		return fmt.Errorf("generic netlink family %s: %w", seg6Family, meaning(err))
	}
	for _, b := range out {
		for _, a := range attributes(b[min(len(b), sizeofGenlMsg):]) {
			if a.kind == genlCtrlFamilyID {
				c.seg6 = uint16(a.u32())
			}
		}
	}
	if c.seg6 == 0 {
		return fmt.Errorf("the kernel names no id for generic netlink family %s: %w", seg6Family, dataplane.ErrUnsupported)
	}
	return nil
}

// tunnelSource is the outer source address, :: when none is set. In a user
// namespace, where the kernel does not let it be read or set, none can be.
func (c *conn) tunnelSource() (netip.Addr, error) {
	out, err := c.generic(int(c.seg6), 0, seg6CmdGetTunnelSrc, seg6Version).Execute(unix.NETLINK_GENERIC, 0)
	if errors.Is(err, unix.EPERM) {
		return netip.IPv6Unspecified(), nil
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("reading the encapsulation source: %w", meaning(err))
	}
	for _, b := range out {
		for _, a := range attributes(b[min(len(b), sizeofGenlMsg):]) {
			if a.kind == seg6AttrDst && a.addr().Is6() {
				return a.addr(), nil
			}
		}
	}
	return netip.Addr{}, errors.New("reading the encapsulation source: no address in the kernel's answer")
}

func (c *conn) setTunnelSource(src netip.Addr) error {
	m := c.generic(int(c.seg6), unix.NLM_F_ACK, seg6CmdSetTunnelSrc, seg6Version)
	m.attr(seg6AttrDst, src.AsSlice())
	_, err := m.Execute(unix.NETLINK_GENERIC, 0)
	if errors.Is(err, unix.EPERM) {
		if src.IsUnspecified() {
			return nil
		}
		return fmt.Errorf("the kernel lets the encapsulation source be set in the initial user namespace only; it takes an address of the outgoing interface here: %w", dataplane.ErrUnsupported)
	}
	return meaning(err)
}

func (t *tx) setSetting(k dataplane.SettingKey, v dataplane.Setting) error {
	switch k {
	case dataplane.SettingEncapSource:
		src, err := netip.ParseAddr(string(v))
		if err != nil || !src.Is6() || src.Is4In6() || src.IsUnspecified() || src.Zone() != "" {
			return fmt.Errorf("encapsulation source %q is not an IPv6 address", v)
		}
		if err := t.conn.setTunnelSource(src); err != nil {
			return err
		}
		t.remember(k, v, dataplane.Setting(src.String()))
		return nil
	case dataplane.SettingFlowLabel:
		n := 0
		switch v {
		case dataplane.FlowLabelInnerHash:
			n = 1
		case dataplane.FlowLabelNone:
		default:
			return fmt.Errorf("flow label mode %q: %w", v, dataplane.ErrUnsupported)
		}
		if err := t.thread.do(func() error { return writeSysctl(sysctlFlowLabel, n) }); err != nil {
			return err
		}
		t.noFlowLabel = n == 0
		return nil
	case dataplane.SettingEncapHopLimit:
		return fmt.Errorf("the kernel copies the inner hop limit of IPv6, and takes its default for IPv4: %w", dataplane.ErrUnsupported)
	case dataplane.SettingFlowHash:
		return fmt.Errorf("the multipath hash (net.ipv6.fib_multipath_hash_policy) belongs to the host: %w", dataplane.ErrUnsupported)
	}
	return fmt.Errorf("setting %q: %w", k, dataplane.ErrUnsupported)
}

// deleteSetting restores the kernel's default.
func (t *tx) deleteSetting(k dataplane.SettingKey) error {
	switch k {
	case dataplane.SettingEncapSource:
		return t.conn.setTunnelSource(netip.IPv6Unspecified())
	case dataplane.SettingFlowLabel:
		t.noFlowLabel = false
		return t.thread.do(func() error { return writeSysctl(sysctlFlowLabel, 0) })
	}
	return nil // never held, so absent
}

// readSettings adds the settings that differ from the kernel's defaults. The
// flow label mode "none" is the default; it is there only when this instance was
// told to set it.
func (b *Backend) readSettings(s dataplane.State, g global) error {
	src, err := b.conn.tunnelSource()
	if err != nil {
		return err
	}
	if !src.IsUnspecified() {
		s.Settings[dataplane.SettingEncapSource] = dataplane.Setting(src.String())
	}
	switch {
	case g.flowLabel == 1:
		s.Settings[dataplane.SettingFlowLabel] = dataplane.FlowLabelInnerHash
	case g.flowLabel == 0 && b.noFlowLabel:
		s.Settings[dataplane.SettingFlowLabel] = dataplane.FlowLabelNone
	}
	return nil
}
