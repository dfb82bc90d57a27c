package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/sidewinder-net/sidewinder/cni/api"
)

// Versions of the CNI specification whose results the plugin can give.
var Versions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// minMTU is IPv6's minimum link MTU in bytes (RFC 8200 §5).
const minMTU = 1280

// netConf is the network configuration of type "sidewinder". Unknown fields are
// the IPAM plugin's or another's.
type netConf struct {
	types.PluginConf
	// Socket is the agent's unix socket.
	Socket string `json:"socket,omitempty"`
	// MTU in bytes lowers the one that the agent gives; 0: as the agent says.
	MTU int `json:"mtu,omitempty"`
}

// podArgs are the pod's names as Kubernetes' runtimes pass them in CNI_ARGS.
type podArgs struct {
	types.CommonArgs
	K8S_POD_NAMESPACE          types.UnmarshallableString //nolint:revive // The name is the key.
	K8S_POD_NAME               types.UnmarshallableString //nolint:revive
	K8S_POD_INFRA_CONTAINER_ID types.UnmarshallableString //nolint:revive
	K8S_POD_UID                types.UnmarshallableString //nolint:revive
}

// parseConf reads the configuration and checks what every command needs: what
// only ADD needs must not keep DEL from cleaning up.
func parseConf(stdin []byte) (*netConf, error) {
	c := &netConf{}
	if err := json.Unmarshal(stdin, c); err != nil {
		field := ""
		var te *json.UnmarshalTypeError
		if errors.As(err, &te) {
			field = te.Field
		}
		return nil, fail(types.ErrInvalidNetworkConfig, "network configuration", field, err.Error(), "correct it")
	}
	object := "network " + c.Name
	if c.IPAM.Type == "" {
		return nil, fail(types.ErrInvalidNetworkConfig, object, "ipam.type", "is missing",
			"name the plugin that gives out addresses, as host-local or calico-ipam")
	}
	if c.Socket == "" {
		c.Socket = api.DefaultSocket
	}
	if !filepath.IsAbs(c.Socket) {
		return nil, fail(types.ErrInvalidNetworkConfig, object, "socket", fmt.Sprintf("%q is not an absolute path", c.Socket),
			"leave it out for "+api.DefaultSocket)
	}
	return c, nil
}

// mtu is the pod interface's, in bytes. The configuration may only lower what
// the agent gives: a larger one would not fit the encapsulation.
func (c *netConf) mtu(node api.NodeConfig) (int, error) {
	switch {
	case c.MTU != 0 && c.MTU < minMTU:
		return 0, fail(types.ErrInvalidNetworkConfig, "network "+c.Name, "mtu", fmt.Sprintf("%d is below %d", c.MTU, minMTU),
			"leave it out: the agent knows the right one")
	case node.MTU < minMTU:
		return 0, fail(CodeAgentRefused, "agent", "mtu", fmt.Sprintf("it gives a pod MTU of %d, which is below %d", node.MTU, minMTU),
			"raise the uplink's MTU")
	case c.MTU == 0:
		return node.MTU, nil
	case c.MTU > node.MTU:
		return 0, fail(types.ErrInvalidNetworkConfig, "network "+c.Name, "mtu",
			fmt.Sprintf("%d is more than the %d that the uplink leaves after the encapsulation", c.MTU, node.MTU),
			"leave it out, or lower it")
	}
	return c.MTU, nil
}

// attachment is one pod interface as the runtime names it.
type attachment struct {
	network, containerID, ifName, netns string
	namespace, pod, uid                 string
}

func parseAttachment(c *netConf, args *skel.CmdArgs) (attachment, error) {
	a := attachment{network: c.Name, containerID: args.ContainerID, ifName: args.IfName, netns: args.Netns}
	pod := podArgs{CommonArgs: types.CommonArgs{IgnoreUnknown: true}}
	if err := types.LoadArgs(args.Args, &pod); err != nil {
		return a, fail(types.ErrInvalidEnvironmentVariables, "CNI_ARGS", "", err.Error(), "")
	}
	a.namespace, a.pod, a.uid = string(pod.K8S_POD_NAMESPACE), string(pod.K8S_POD_NAME), string(pod.K8S_POD_UID)
	return a, nil
}

// String names the pod for error messages.
func (a attachment) String() string {
	if a.pod != "" {
		return fmt.Sprintf("pod %s/%s, interface %s", a.namespace, a.pod, a.ifName)
	}
	return fmt.Sprintf("container %s, interface %s", a.containerID, a.ifName)
}
