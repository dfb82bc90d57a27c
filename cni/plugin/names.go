package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"strings"
)

// Names and marks on the node. They derive from the attachment alone, so that a
// plugin without a memory finds again what an earlier run made.

const (
	linkPrefix = "sw"
	markPrefix = "sidewinder:"
	// maxAlias is what the kernel takes as an interface's alias, in bytes
	// (IFALIASZ less the NUL).
	maxAlias = 255
)

func attachmentHash(containerID, ifName string) [sha256.Size]byte {
	return sha256.Sum256([]byte(containerID + "/" + ifName))
}

// HostInterface is the name of the host end for a container's interface.
func HostInterface(containerID, ifName string) string {
	h := attachmentHash(containerID, ifName)
	return linkPrefix + hex.EncodeToString(h[:])[:11]
}

// podMAC is the pod end's address: the same whenever ADD is repeated, unicast
// and locally administered (IEEE 802, bits 0 and 1 of the first octet).
func podMAC(containerID, ifName string) net.HardwareAddr {
	h := attachmentHash(containerID, ifName)
	mac := net.HardwareAddr(h[len(h)-6:])
	// Neither the gateway's ee:… nor any other with all of these bits set.
	mac[0] = mac[0]&^0x1d | 0x02
	return mac
}

// mark is the alias of a host end: whose it is, for people and for GC.
func mark(a attachment) string {
	if m := markPrefix + a.network + ":" + a.containerID + "/" + a.ifName; len(m) <= maxAlias {
		return m
	}
	sum := sha256.Sum256([]byte(a.network))
	return markPrefix + "#" + hex.EncodeToString(sum[:]) + ":"
}

// marked tells whether an alias is a mark of the network, and which attachment
// it names (empty when the names were too long for it).
func marked(alias, network string) (containerID, ifName string, ours bool) {
	sum := sha256.Sum256([]byte(network))
	if alias == markPrefix+"#"+hex.EncodeToString(sum[:])+":" {
		return "", "", true
	}
	rest, ok := strings.CutPrefix(alias, markPrefix+network+":")
	if !ok {
		return "", "", false
	}
	containerID, ifName, ok = strings.Cut(rest, "/")
	return containerID, ifName, ok
}
