// Package v1alpha1 holds the custom resources of group sidewinder.io. The same
// types describe the objects of a plain folder of YAML files and those of a
// Kubernetes API server.
//
// +kubebuilder:object:generate=true
// +groupName=sidewinder.io
package v1alpha1

//go:generate go tool controller-gen object crd:crdVersions=v1 paths=. output:crd:dir=../../yaml/crds

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Group and version of the resources.
const (
	Group      = "sidewinder.io"
	Version    = "v1alpha1"
	APIVersion = Group + "/" + Version
)

// Kinds of the resources.
const (
	KindSRv6Locator = "SRv6Locator"
	KindSRv6Node    = "SRv6Node"
)

// SRv6Locator is a node's claim on a locator (RFC 8986 §3.1). Its name is
// derived from the locator (see LocatorName), so that creating the object, which
// succeeds for one creator only, is the lock.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=sloc
// +kubebuilder:printcolumn:name="Locator",type=string,JSONPath=`.spec.locator`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.nodeName`
type SRv6Locator struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec SRv6LocatorSpec `json:"spec"`
}

// SRv6LocatorSpec is who holds what.
type SRv6LocatorSpec struct {
	// Locator is the IPv6 prefix held, a /48 (F3216: block /32, node 16 bits).
	Locator string `json:"locator"`
	// NodeName is the holder.
	NodeName string `json:"nodeName"`
}

// SRv6Node is what a node publishes of itself for its peers. Its name is the
// node's name.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=srn
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Locator",type=string,JSONPath=`.spec.locator`
// +kubebuilder:printcolumn:name="Source",type=string,JSONPath=`.spec.encapSource`
// +kubebuilder:printcolumn:name="Dataplane",type=string,JSONPath=`.status.dataplane`
type SRv6Node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   SRv6NodeSpec   `json:"spec"`
	Status SRv6NodeStatus `json:"status,omitempty"`
}

// SRv6NodeSpec is what peers need to send traffic to the node.
type SRv6NodeSpec struct {
	// EncapSource is the node's own stable IPv6 address: the outer source of
	// what it sends, and the address by which peers find the way to it where
	// the underlay does not route locators.
	EncapSource string `json:"encapSource"`
	// Locator is the node's locator prefix.
	Locator string `json:"locator"`
	// SIDs are the node's SIDs that peers may use.
	SIDs []SRv6SID `json:"sids"`
	// Prefixes are the pod prefixes that live on the node.
	Prefixes []string `json:"prefixes,omitempty"`
}

// SRv6SID is one SID with its behaviour.
type SRv6SID struct {
	// SID is the address, or a prefix for uN.
	SID string `json:"sid"`
	// Behaviour is the name in RFC 8986 and RFC 9800: uN, End.DT4, End.DT6.
	Behaviour string `json:"behaviour"`
	// Table is the lookup table of End.DT*; 0 is the main table.
	Table uint32 `json:"table,omitempty"`
}

// SRv6NodeStatus tells people, not peers, how the node does.
type SRv6NodeStatus struct {
	// Dataplane that carries the pods' traffic now: "vpp" or "linux".
	Dataplane string `json:"dataplane,omitempty"`
	// DataplaneVersion is VPP's version or the kernel's release.
	DataplaneVersion string `json:"dataplaneVersion,omitempty"`
}
