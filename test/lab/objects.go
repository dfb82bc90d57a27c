package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	apiv3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
	"github.com/sidewinder-net/sidewinder/test/lab/fabric"
)

// The cluster's address pools.
const (
	pool4 = "10.244.0.0/16"
	pool6 = "fd10:244::/32"
)

// podCIDRs are the prefixes given to a node.
func podCIDRs(node int) []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", node)),
		netip.MustParsePrefix(fmt.Sprintf("fd10:244:%d::/64", node)),
	}
}

func cidrStrings(ps []netip.Prefix) []string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.String()
	}
	return out
}

// writeCluster writes what an administrator and the control plane bring: the
// pools and the nodes.
func (l *Lab) writeCluster() error {
	for name, cidr := range map[string]string{"pods-ipv4": pool4, "pods-ipv6": pool6} {
		pool := apiv3.IPPool{
			TypeMeta:   metav1.TypeMeta{APIVersion: "projectcalico.org/v3", Kind: "IPPool"},
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       apiv3.IPPoolSpec{CIDR: cidr},
		}
		if err := l.writeObject("ippool-"+name, pool); err != nil {
			return err
		}
	}
	for _, n := range l.Nodes() {
		if err := l.writeNode(n); err != nil {
			return err
		}
	}
	return nil
}

// steeredPrefixes are the prefixes that the Node objects give to the nodes now,
// after whatever was changed in them.
func (l *Lab) steeredPrefixes(nodes []*Node) (map[*Node][]string, error) {
	out := make(map[*Node][]string, len(nodes))
	for _, n := range nodes {
		raw, err := os.ReadFile(filepath.Join(l.objectsDir(), "node-"+n.Name+".yaml"))
		if err != nil {
			return nil, err
		}
		var object corev1.Node
		if err := yaml.Unmarshal(raw, &object); err != nil {
			return nil, fmt.Errorf("object node-%s: %w", n.Name, err)
		}
		out[n] = object.Spec.PodCIDRs
	}
	return out, nil
}

func (l *Lab) writeNode(n *Node) error {
	cidrs := cidrStrings(podCIDRs(n.ID))
	return l.writeObject("node-"+n.Name, corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: n.Name},
		Spec:       corev1.NodeSpec{PodCIDR: cidrs[0], PodCIDRs: cidrs},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: fabric.NodeAddr(n.ID).String()},
			{Type: corev1.NodeInternalIP, Address: fabric.NodeAddr4(n.ID).String()},
			{Type: corev1.NodeHostName, Address: n.Name},
		}},
	})
}

// writePod reports a pod as its kubelet would.
func (l *Lab) writePod(p *Pod) error {
	ips := make([]corev1.PodIP, len(p.IPs))
	for i, a := range p.IPs {
		ips[i].IP = a.String()
	}
	return l.writeObject("pod-"+p.Name, corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: podNamespace, Name: p.Name},
		Spec:       corev1.PodSpec{NodeName: p.Node, Containers: []corev1.Container{{Name: "lab"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ips[0].IP, PodIPs: ips},
	})
}

// writeObject writes one object in one file, whole or not at all.
func (l *Lab) writeObject(name string, object any) error {
	raw, err := yaml.Marshal(object)
	if err != nil {
		return fmt.Errorf("object %s: %w", name, err)
	}
	path := filepath.Join(l.objectsDir(), name+".yaml")
	tmp := filepath.Join(l.objectsDir(), "."+name+".tmp")
	if err := os.WriteFile(tmp, raw, 0o644); err != nil {
		return fmt.Errorf("object %s: %w", name, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("object %s: %w", name, err)
	}
	return nil
}

func (l *Lab) removeObject(name string) error {
	err := os.Remove(filepath.Join(l.objectsDir(), name+".yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// forgetNode removes a node's objects: first the Node, as an administrator does,
// then what the cluster's garbage collection would take away after it: its pods
// and what its agent published.
func (l *Lab) forgetNode(n *Node) error {
	errs := []error{l.removeObject("node-" + n.Name)}
	for _, p := range n.Pods() {
		errs = append(errs, l.removeObject("pod-"+p.Name))
	}
	paths, err := filepath.Glob(filepath.Join(l.objectsDir(), "*.yaml"))
	errs = append(errs, err)
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(raw), v1alpha1.Group) {
			continue
		}
		var obj struct {
			metav1.TypeMeta   `json:",inline"`
			metav1.ObjectMeta `json:"metadata"`
			Spec              struct {
				NodeName string `json:"nodeName"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal(raw, &obj); err != nil {
			continue
		}
		if obj.Kind == v1alpha1.KindSRv6Node && obj.Name == n.Name || obj.Kind == v1alpha1.KindSRv6Locator && obj.Spec.NodeName == n.Name {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}
