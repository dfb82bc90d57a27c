package vpp

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// linkInfo is the kernel's side of an interface.
type linkInfo struct {
	name  string
	index int
	mac   dataplane.MAC
	mtu   int
	up    bool
	// program is the number of the XDP program that is on it; 0: none.
	program uint32
}

// device is the link as the netlink library wants it.
func (link linkInfo) device() *netlink.Device {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: link.index, Name: link.name}}
}

// errNoLink: the kernel has no link of this name.
var errNoLink = errors.New("there is no such link")

func findLink(name string) (linkInfo, error) {
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return linkInfo{}, errNoLink
	}
	if err != nil {
		return linkInfo{}, err
	}
	return infoOf(l), nil
}

// linkExists reports whether the link with this index is still there, under
// whatever name.
func linkExists(index int) bool {
	_, err := netlink.LinkByIndex(index)
	return err == nil
}

// preparePodLink brings the kernel's end of a pod's link into line. The kernel
// checks arriving frames against its own MAC and MTU even where VPP takes them.
// All else about the link is the kernel dataplane's, which has it as well.
func preparePodLink(l linkInfo, want dataplane.Interface) (linkInfo, error) {
	link := l.device()
	if !want.MAC.IsZero() && want.MAC != l.mac {
		if err := netlink.LinkSetHardwareAddr(link, want.MAC[:]); err != nil {
			return l, fmt.Errorf("MAC %s: %w", want.MAC, err)
		}
	}
	if want.MTU != 0 && int(want.MTU) != l.mtu {
		if err := netlink.LinkSetMTU(link, int(want.MTU)); err != nil {
			return l, fmt.Errorf("MTU %d: %w", want.MTU, err)
		}
	}
	if !l.up {
		if err := netlink.LinkSetUp(link); err != nil {
			return l, fmt.Errorf("up: %w", err)
		}
	}
	return findLink(l.name)
}

// bringUp brings a link up again that VPP took down with its own interface, if
// it is still the same one. There is nothing to do where it goes away meanwhile:
// that is how a pod ends.
func bringUp(name string, index int) error {
	if gone(name, index) {
		return nil
	}
	err := netlink.LinkSetUp(linkInfo{name: name, index: index}.device())
	if err == nil || gone(name, index) {
		return nil
	}
	return fmt.Errorf("link %q: up: %w", name, err)
}

// gone: the link of this name is not there, or is another one.
func gone(name string, index int) bool {
	l, err := findLink(name)
	return errors.Is(err, errNoLink) || err == nil && l.index != index
}
