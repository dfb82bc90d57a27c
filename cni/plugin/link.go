package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/cni/api"
)

// gatewayMAC is the address of every host end.
func gatewayMAC() net.HardwareAddr {
	mac, err := net.ParseMAC(api.GatewayMAC)
	if err != nil {
		panic(err) // A constant of this project.
	}
	return mac
}

// hostEnd finds a host end by name; nil when there is none. Something else of
// that name is an error: it is not ours to touch.
func hostEnd(name string) (netlink.Link, error) {
	l, err := netlinksafe.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, interfaceError(name, "looking for it", err)
	}
	if l.Type() != "veth" {
		return nil, fail(CodeInterface, "interface "+name, "type", fmt.Sprintf("it is a %s, not a veth of this plugin", l.Type()),
			"rename or remove it")
	}
	return l, nil
}

// deleteLink removes a veth pair by its host end; an absent one is no error.
// With the host end goes the pod's, wherever that is.
func deleteLink(name string) error {
	l, err := hostEnd(name)
	if err != nil || l == nil {
		return err
	}
	// It may go by itself at any moment, with the pod's namespace.
	if err := netlink.LinkDel(l); err != nil {
		if left, err2 := hostEnd(name); err2 != nil || left != nil {
			return interfaceError(name, "removing it", err)
		}
	}
	return nil
}

// createVeth makes the pair: the host end here, down, the pod's end in its
// namespace at once, so that it never shows up on the node. After an error
// there is neither.
func createVeth(a attachment, podNS ns.NetNS, mtu int) (netlink.Link, error) {
	name := HostInterface(a.containerID, a.ifName)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.MTU = mtu
	attrs.HardwareAddr = gatewayMAC()
	veth := netlink.NewVeth(attrs)
	veth.PeerName = a.ifName
	veth.PeerMTU = uint32(mtu)
	veth.PeerHardwareAddr = podMAC(a.containerID, a.ifName)
	veth.PeerNamespace = netlink.NsFd(podNS.Fd())
	if err := netlink.LinkAdd(veth); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fail(CodeInterface, a.String(), "", "the pod has an interface of that name already, which this plugin did not make",
				"give each network its own interface name, and put \"sidewinder\" first in the list of plugins")
		}
		return nil, interfaceError(name, "making the veth pair", err)
	}
	host, err := netlinksafe.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetAlias(host, mark(a))
	}
	if err != nil {
		return nil, joined(interfaceError(name, "marking it as ours", err), deleteLink(name))
	}
	return host, nil
}

// raiseHost brings the host end up. Pods must not be able to configure the node
// by router advertisements (RFC 4861 §6.3.4).
func raiseHost(host netlink.Link) error {
	name := host.Attrs().Name
	if err := setSysctl("ipv6/conf/"+name+"/accept_ra", "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return interfaceError(name, "refusing router advertisements", err)
	}
	if err := netlink.LinkSetUp(host); err != nil {
		return interfaceError(name, "bringing it up", err)
	}
	return nil
}

// leftovers lists the host ends of a network, by name: the attachment's
// container and interface where the mark tells them.
func leftovers(network string) (map[string][2]string, error) {
	links, err := netlinksafe.LinkList()
	if err != nil {
		return nil, interfaceError(linkPrefix+"*", "listing", err)
	}
	out := map[string][2]string{}
	for _, l := range links {
		name := l.Attrs().Name
		if l.Type() != "veth" || !strings.HasPrefix(name, linkPrefix) {
			continue
		}
		container, ifName, ours := marked(l.Attrs().Alias, network)
		if !ours || (container != "" && HostInterface(container, ifName) != name) {
			continue
		}
		out[name] = [2]string{container, ifName}
	}
	return out, nil
}

// setSysctl writes below /proc/sys/net, of the network namespace that the
// calling thread is in. What holds the value already is not written: the file
// may be read-only.
func setSysctl(name, value string) error {
	path := filepath.Join("/proc/sys/net", name)
	if raw, err := os.ReadFile(path); err != nil {
		return err
	} else if strings.TrimSpace(string(raw)) == value {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0o644)
}
