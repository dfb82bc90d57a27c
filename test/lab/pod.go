package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/cni/plugin"
	"github.com/sidewinder-net/sidewinder/test/lab/ns"
	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
)

const (
	podNamespace = "lab"
	podIfName    = "eth0"
	networkName  = "sidewinder"
	networkType  = "sidewinder"
	ipamType     = "host-local"
)

// Pod is a network namespace that a CNI plugin has wired to its node.
type Pod struct {
	// Name is also the network namespace's.
	Name string
	// Node's name.
	Node string
	IPs  []netip.Addr
	// MTU of the interface in bytes.
	MTU int

	echo *traffic.Echo
}

// Peer is the pod as the traffic tools take it.
func (p *Pod) Peer() traffic.Peer { return traffic.Peer{Name: p.Name, IPs: p.IPs, MTU: p.MTU} }

// Addr is the pod's address of a family, 4 or 6.
func (p *Pod) Addr(family int) (netip.Addr, bool) {
	i := slices.IndexFunc(p.IPs, func(a netip.Addr) bool { return a.Is4() == (family == 4) })
	if i < 0 {
		return netip.Addr{}, false
	}
	return p.IPs[i], true
}

// Pods of the node, in the order of their making.
func (n *Node) Pods() []*Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*Pod, 0, len(n.pods))
	for i := 1; i <= n.nextPod; i++ {
		if p, ok := n.pods[n.podName(i)]; ok {
			out = append(out, p)
		}
	}
	return out
}

func (n *Node) podName(i int) string { return fmt.Sprintf("%s-pod%d", n.Name, i) }

// conflist is the node's CNI configuration, as an administrator writes it.
func (n *Node) conflist() (*libcni.NetworkConfigList, error) {
	ranges := [][]map[string]string{}
	for _, c := range n.PodCIDRs() {
		ranges = append(ranges, []map[string]string{{"subnet": c.String()}})
	}
	raw, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0",
		"name":       networkName,
		"plugins": []any{map[string]any{
			"type":   networkType,
			"socket": n.Socket(),
			"ipam": map[string]any{
				"type":    ipamType,
				"ranges":  ranges,
				"dataDir": n.ipamDir(),
			},
		}},
	})
	if err != nil {
		return nil, err
	}
	return libcni.ConfListFromBytes(raw)
}

func (n *Node) runtime() libcni.CNI {
	return libcni.NewCNIConfigWithCacheDir([]string{n.lab.cniDir()}, n.cacheDir(), nil)
}

func runtimeConf(pod string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: pod, NetNS: ns.Path(pod), IfName: podIfName,
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", podNamespace}, {"K8S_POD_NAME", pod}, {"K8S_POD_UID", "lab-" + pod}},
	}
}

// HostInterface is the name of the node's end of the pod's interface.
func (p *Pod) HostInterface() string { return plugin.HostInterface(p.Name, podIfName) }

// AddPod makes one more pod on the node and wires it.
func (n *Node) AddPod(ctx context.Context) (*Pod, error) {
	pod, err := n.NewPod()
	if err != nil {
		return nil, err
	}
	return pod, n.WirePod(ctx, pod)
}

// NewPod makes the namespace of one more pod on the node.
func (n *Node) NewPod() (*Pod, error) {
	n.mu.Lock()
	n.nextPod++
	pod := &Pod{Name: n.podName(n.nextPod), Node: n.Name}
	n.mu.Unlock()
	if err := ns.Create(pod.Name); err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.pods[pod.Name] = pod
	n.mu.Unlock()
	return pod, nil
}

// WirePod is the CNI plugin's ADD for a pod, and the report of it. An echo server
// then runs in the pod. What failed can be tried again.
func (n *Node) WirePod(ctx context.Context, pod *Pod) error {
	// The plugin inherits the node's network namespace from this thread.
	err := ns.Do(n.Name, func() error { return n.cniAdd(ctx, pod) })
	if err != nil {
		return fmt.Errorf("pod %s: CNI ADD: %w", pod.Name, err)
	}
	if err := n.lab.writePod(pod); err != nil {
		return err
	}
	if pod.echo == nil {
		pod.echo, err = traffic.NewEcho(pod.Name)
	}
	return err
}

func (n *Node) cniAdd(ctx context.Context, pod *Pod) error {
	list, err := n.conflist()
	if err != nil {
		return err
	}
	r, err := n.runtime().AddNetworkList(ctx, list, runtimeConf(pod.Name))
	if err != nil {
		return err
	}
	result, err := current.NewResultFromResult(r)
	if err != nil {
		return err
	}
	pod.IPs = nil
	for _, ip := range result.IPs {
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			return fmt.Errorf("result has an address that is none: %v", ip.Address)
		}
		pod.IPs = append(pod.IPs, a.Unmap())
	}
	if len(pod.IPs) == 0 {
		return errors.New("result has no address")
	}
	h, err := ns.Handle(pod.Name)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(podIfName)
	if err != nil {
		return fmt.Errorf("interface %s: %w", podIfName, err)
	}
	pod.MTU = link.Attrs().MTU
	return nil
}

// DelPod takes a pod away: CNI DEL, the report, the namespace.
func (n *Node) DelPod(ctx context.Context, pod *Pod) error {
	return errors.Join(n.UnwirePod(ctx, pod), n.lab.removeObject("pod-"+pod.Name), n.dropPod(pod))
}

// UnwirePod is the CNI plugin's DEL for a pod.
func (n *Node) UnwirePod(ctx context.Context, pod *Pod) error {
	err := ns.Do(n.Name, func() error {
		list, err := n.conflist()
		if err != nil {
			return err
		}
		return n.runtime().DelNetworkList(ctx, list, runtimeConf(pod.Name))
	})
	if err != nil {
		return fmt.Errorf("pod %s: CNI DEL: %w", pod.Name, err)
	}
	return nil
}

// dropPod removes a pod's namespace without telling anybody.
func (n *Node) dropPod(pod *Pod) error {
	if pod.echo != nil {
		pod.echo.Close()
	}
	n.mu.Lock()
	delete(n.pods, pod.Name)
	n.mu.Unlock()
	var err error
	if h, herr := ns.Handle(pod.Name); herr == nil {
		if link, lerr := h.LinkByName(podIfName); lerr == nil {
			err = h.LinkDel(link)
		} else if !errors.As(lerr, &netlink.LinkNotFoundError{}) {
			err = lerr
		}
		h.Close()
	}
	return errors.Join(err, ns.Delete(pod.Name))
}

func (n *Node) dropPods() error {
	var errs []error
	for _, p := range n.Pods() {
		errs = append(errs, n.dropPod(p))
	}
	return errors.Join(errs...)
}
