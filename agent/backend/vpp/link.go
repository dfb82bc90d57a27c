package vpp

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

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
	a := l.Attrs()
	info := linkInfo{name: name, index: a.Index, mtu: a.MTU, up: a.Flags&net.FlagUp != 0}
	copy(info.mac[:], a.HardwareAddr)
	return info, nil
}

// linkExists reports whether the link with this index is still there, under
// whatever name.
func linkExists(index int) bool {
	_, err := netlink.LinkByIndex(index)
	return err == nil
}

// preparePodLink brings the kernel's end of a pod's link into line. The kernel
// checks arriving frames against its own MAC and MTU even where VPP takes them.
// shared: the kernel sees the pod's frames as well, and must not forward them.
func preparePodLink(l linkInfo, want dataplane.Interface, shared bool) (linkInfo, error) {
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index, Name: l.name}}
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
	if shared {
		// IPv6 has no forwarding switch for a single interface that the kernel
		// heeds; without IPv6 on it, arriving packets are dropped.
		if err := setSysctls(l.name, map[string]string{"ipv4": "forwarding=0", "ipv6": "disable_ipv6=1"}); err != nil {
			return l, err
		}
	}
	if !l.up {
		if err := netlink.LinkSetUp(link); err != nil {
			return l, fmt.Errorf("up: %w", err)
		}
	}
	return findLink(l.name)
}

// restorePodLink gives a link back to the kernel, if it is still the same. VPP's
// af_packet took it down.
func restorePodLink(name string, index int) error {
	l, err := findLink(name)
	if errors.Is(err, errNoLink) || err == nil && l.index != index {
		return nil
	}
	if err != nil {
		return err
	}
	return restoreLink(l)
}

// restoreLink has nothing to do where the link goes away meanwhile: that is how
// a pod ends.
func restoreLink(l linkInfo) error {
	forwarding := "0"
	if b, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/forwarding"); err == nil {
		forwarding = strings.TrimSpace(string(b))
	}
	err := setSysctls(l.name, map[string]string{"ipv4": "forwarding=" + forwarding, "ipv6": "disable_ipv6=0"})
	if err == nil {
		err = netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index, Name: l.name}})
	}
	if err == nil {
		return nil
	}
	if now, ferr := findLink(l.name); errors.Is(ferr, errNoLink) || ferr == nil && now.index != l.index {
		return nil
	}
	return err
}

// setSysctls writes "name=value" into net.<family>.conf.<link>. A family that
// the kernel does not have needs no setting.
func setSysctls(link string, values map[string]string) error {
	for family, assignment := range values {
		name, value, _ := strings.Cut(assignment, "=")
		path := "/proc/sys/net/" + family + "/conf/" + link + "/" + name
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			if _, serr := os.Stat("/proc/sys/net/" + family); errors.Is(serr, os.ErrNotExist) {
				continue
			}
			return fmt.Errorf("sysctl net.%s.conf.%s.%s=%s: %w", family, link, name, value, err)
		}
	}
	return nil
}

// protocol and metric mark the kernel routes of this program.
const (
	protocol = 83
	metric   = 83
)
