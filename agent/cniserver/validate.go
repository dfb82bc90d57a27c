package cniserver

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/cni/api"
)

// maxNames bounds free text in a record; Kubernetes' own names are at most 253.
const maxNames = 253

// containerID is what the CNI specification allows (section "Parameters").
var containerID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`)

// validate checks all of an endpoint and names the first field that is wrong.
func validate(ep api.Endpoint) *api.Error {
	bad := func(field, remedy, format string, args ...any) *api.Error {
		return &api.Error{Object: "endpoint " + ep.ID(), Field: field, Reason: fmt.Sprintf(format, args...), Remedy: remedy}
	}
	if !containerID.MatchString(ep.ContainerID) || len(ep.ContainerID) > maxNames {
		return bad("containerID", "use letters, digits, '_', '.', '-'", "%.64q is not a container ID", ep.ContainerID)
	}
	if msg := badLinkName(ep.IfName); msg != "" {
		return bad("ifName", "", "%.64q %s", ep.IfName, msg)
	}
	if msg := badLinkName(ep.HostInterface); msg != "" {
		return bad("hostInterface", "", "%.64q %s", ep.HostInterface, msg)
	}
	if !filepath.IsAbs(ep.Netns) || strings.ContainsRune(ep.Netns, 0) || len(ep.Netns) > 4095 {
		return bad("netns", "", "%.64q is not an absolute path", ep.Netns)
	}
	for field, v := range map[string]string{"namespace": ep.Namespace, "name": ep.Name, "uid": ep.UID, "network": ep.Network} {
		if len(v) > maxNames || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return bad(field, "", "%.64q is longer than %d bytes or has control characters", v, maxNames)
		}
	}
	for field, v := range map[string]string{"hostMAC": ep.HostMAC, "podMAC": ep.PodMAC} {
		m, err := dataplane.ParseMAC(v)
		if err != nil {
			return bad(field, "", "%v", err)
		}
		if m.IsZero() || m[0]&1 != 0 {
			return bad(field, "", "%s is not a unicast address", v)
		}
	}
	if ep.HostMAC == ep.PodMAC {
		return bad("podMAC", "", "%s is the host end's address as well", ep.PodMAC)
	}
	if ep.MTU < config.MinPodMTU || ep.MTU > 65535-config.EncapOverhead {
		return bad("mtu", "", "%d is not between %d and %d", ep.MTU, config.MinPodMTU, 65535-config.EncapOverhead)
	}
	if len(ep.IPs) == 0 {
		return bad("ips", "configure the IPAM plugin so that it gives an address", "is empty")
	}
	seen := map[netip.Addr]bool{}
	for i, ip := range ep.IPs {
		field := fmt.Sprintf("ips[%d]", i)
		switch {
		case !ip.IsValid(), ip.Is4In6(), ip.Zone() != "":
			return bad(field, "", "%s is not a plain IPv4 or IPv6 address", ip)
		case ip.IsUnspecified(), ip.IsMulticast(), ip.IsLoopback(), ip.IsLinkLocalUnicast():
			return bad(field, "correct the IPAM plugin's ranges", "%s cannot be a pod's address", ip)
		case seen[ip]:
			return bad(field, "", "%s is listed twice", ip)
		}
		seen[ip] = true
	}
	if len(ep.Result) != 0 && !json.Valid(ep.Result) {
		return bad("result", "", "is not JSON")
	}
	return nil
}

// badLinkName says what is wrong with an interface's name, by the kernel's
// rules (dev_valid_name).
func badLinkName(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > 15:
		return "is longer than 15 bytes"
	case name == ".", name == "..", strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r == 0x7f }):
		return "is not an interface name"
	}
	return ""
}

func splitID(id string) (container, ifName string) {
	container, ifName, _ = strings.Cut(id, "/")
	return container, ifName
}
