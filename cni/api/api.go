// Package api is what the CNI plugin and the agent say to each other: JSON over
// HTTP on a unix socket. It is the only package that both of them import.
package api

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
)

// DefaultSocket is where the agent listens unless told otherwise.
const DefaultSocket = "/run/sidewinder/cni.sock"

// WireTimeout is how long the plugin waits for the answer to a POST or DELETE of
// an endpoint. The agent must have answered well before, so that the reason is
// heard.
const WireTimeout = 30 * time.Second

// Paths of the requests. All take and give JSON; an answer that is not 2xx
// carries an Error.
const (
	// PathConfig (GET) gives a NodeConfig.
	PathConfig = "/v1/cni/config"
	// PathEndpoints: GET gives []Endpoint; POST of an Endpoint wires it and
	// answers when the dataplane holds it.
	PathEndpoints = "/v1/cni/endpoints"
	// PathEndpoint (GET, DELETE) is PathEndpoints/{container}/{interface}.
	// DELETE of an unknown one succeeds, and answers when the dataplane has
	// let go of it.
	PathEndpoint = PathEndpoints + "/{container}/{interface}"
	// PathReady (GET) answers 200 when the agent can wire pods, else 503 with
	// the reason.
	PathReady = "/v1/ready"
	// PathStatus (GET) gives the agent's status (package agent/status).
	PathStatus = "/v1/status"
	// PathResync (POST) asks for an immediate full comparison with the
	// dataplane and answers when it is done.
	PathResync = "/v1/resync"
)

// Gateway addresses that every pod uses. No host owns them on a link: the pod
// holds a permanent neighbour entry with the host end's MAC, so neither ARP nor
// neighbour discovery is needed, whichever dataplane is behind it.
var (
	GatewayIPv4 = netip.MustParseAddr("169.254.1.1")
	// GatewayIPv6 is the link-local address that belongs to GatewayMAC.
	GatewayIPv6 = netip.MustParseAddr("fe80::ecee:eeff:feee:eeee")
)

// GatewayMAC is the address of every pod's host end.
const GatewayMAC = "ee:ee:ee:ee:ee:ee"

// NodeConfig is what the plugin needs to know to make a pod's interface.
type NodeConfig struct {
	// MTU of pod interfaces in bytes: the uplink's less the encapsulation.
	MTU int `json:"mtu"`
	// DisableTxChecksum: the pod's end must write whole checksums, because its
	// frames leave through a userspace dataplane.
	DisableTxChecksum bool `json:"disableTxChecksum"`
}

// Endpoint is one pod interface: the pod record.
type Endpoint struct {
	ContainerID string `json:"containerID"`
	// IfName is the interface's name in the pod.
	IfName string `json:"ifName"`
	// Netns is the path of the pod's network namespace.
	Netns string `json:"netns"`
	// Namespace, Name, UID are the pod's, where the runtime tells them.
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	UID       string `json:"uid,omitempty"`
	// HostInterface is the name of the host's end of the veth.
	HostInterface string `json:"hostInterface"`
	HostMAC       string `json:"hostMAC"`
	PodMAC        string `json:"podMAC"`
	// IPs are the pod's addresses, without prefix length.
	IPs []netip.Addr `json:"ips"`
	MTU int          `json:"mtu"`
	// WholeChecksums: the pod's end writes whole checksums, as NodeConfig asked
	// for; without them only the kernel can carry the pod's packets.
	WholeChecksums bool `json:"wholeChecksums,omitempty"`
	// Network is the name of the CNI network the interface belongs to: garbage
	// collection of one network leaves the others' interfaces alone.
	Network string `json:"network,omitempty"`
	// Result is the plugin's own answer to ADD (CNI 1.1.0), opaque to the
	// agent: it lets a repeated ADD answer the same again.
	Result json.RawMessage `json:"result,omitempty"`
}

// ID is the endpoint's identity.
func (e Endpoint) ID() string { return e.ContainerID + "/" + e.IfName }

// Error is the body of every answer that is not 2xx.
type Error struct {
	// Object and Field say what is wrong where; Field may be empty.
	Object string `json:"object,omitempty"`
	Field  string `json:"field,omitempty"`
	// Reason says what is wrong, and Remedy what to do about it.
	Reason string `json:"reason"`
	Remedy string `json:"remedy,omitempty"`
	// TryAgain: the same request may succeed later.
	TryAgain bool `json:"tryAgain,omitempty"`
}

func (e *Error) Error() string {
	s := e.Reason
	switch {
	case e.Object != "" && e.Field != "":
		s = fmt.Sprintf("%s: %s: %s", e.Object, e.Field, e.Reason)
	case e.Object != "":
		s = fmt.Sprintf("%s: %s", e.Object, e.Reason)
	}
	if e.Remedy != "" {
		s += " (" + e.Remedy + ")"
	}
	return s
}
