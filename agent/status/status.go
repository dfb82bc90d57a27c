// Package status is what an agent tells of itself: the types behind its status
// page, shared with the operator's tools.
package status

import "time"

// Version of the document's layout; it changes when a field changes meaning.
const Version = 1

// Status is the whole document.
type Status struct {
	Version int    `json:"version"`
	Node    string `json:"node"`
	// Ready: pods can be wired. Reason says why not.
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`

	Dataplane Dataplane `json:"dataplane"`
	Locator   string    `json:"locator,omitempty"`
	// EncapSource is the outer source address.
	EncapSource string   `json:"encapSource,omitempty"`
	SIDs        []SID    `json:"sids,omitempty"`
	Policies    []Policy `json:"policies,omitempty"`
	Endpoints   int      `json:"endpoints"`
	PodMTU      int      `json:"podMTU"`

	Source Source `json:"source"`
	// Reconcile is about Dataplane.Kind.
	Reconcile Reconcile `json:"reconcile"`
	// Standby is about the kernel beside VPP; nil on a node without VPP.
	Standby *Reconcile `json:"standby,omitempty"`
	// Problems are inputs that could not be used.
	Problems []Problem `json:"problems,omitempty"`
}

// Dataplane is the packet path of the node.
type Dataplane struct {
	// Kind is the one wanted: "vpp" or "linux".
	Kind    string `json:"kind"`
	Version string `json:"version,omitempty"`
	// Active is the one that carries the traffic now: "vpp" or "linux".
	Active string `json:"active"`
	// Reason says why Active is not Kind.
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	// Switches counts the changes of Active since the agent started.
	Switches int `json:"switches"`
	// Withheld are destinations that stay with the kernel while VPP carries
	// the rest, with the reason.
	Withheld []Object `json:"withheld,omitempty"`
	// Links tell the packets by verdict, of the links with the shim.
	Links []Link `json:"links,omitempty"`
	// Manager is what vpp-manager says of VPP, empty without one.
	Manager *Manager `json:"manager,omitempty"`
}

// Link is an interface with the XDP shim.
type Link struct {
	Name string `json:"name"`
	// Mode of the shim: "vpp", "kernel" or "held".
	Mode string `json:"mode"`
	// Packets by verdict.
	Packets map[string]uint64 `json:"packets,omitempty"`
}

// Manager is what vpp-manager says of VPP.
type Manager struct {
	State     string    `json:"state"`
	PID       int       `json:"pid,omitempty"`
	Deaths    int       `json:"deaths"`
	LastDeath string    `json:"lastDeath,omitempty"`
	NextStart time.Time `json:"nextStart,omitzero"`
}

// SID is one of the node's local SIDs.
type SID struct {
	SID       string `json:"sid"`
	Behaviour string `json:"behaviour"`
	Table     uint32 `json:"table"`
}

// Policy is an SR policy with what is steered into it.
type Policy struct {
	BSID     string   `json:"bsid"`
	Endpoint string   `json:"endpoint"`
	Colour   uint32   `json:"colour"`
	Family   string   `json:"family"`
	Lists    []string `json:"lists"`
	Prefixes []string `json:"prefixes"`
}

// Source is where the cluster's state comes from.
type Source struct {
	Kind   string   `json:"kind"`
	Synced bool     `json:"synced"`
	Errors []string `json:"errors,omitempty"`
}

// Reconcile tells how far the dataplane is from what is wanted.
type Reconcile struct {
	// InSync: the dataplane holds what the newest input asks for, as far as
	// it can.
	InSync   bool      `json:"inSync"`
	Objects  int       `json:"objects"`
	LastDump time.Time `json:"lastDump,omitzero"`
	LastSync time.Time `json:"lastSync,omitzero"`
	// Error is set while the dataplane cannot be reached.
	Error       string   `json:"error,omitempty"`
	Failing     []Object `json:"failing,omitempty"`
	Unsupported []Object `json:"unsupported,omitempty"`
}

// Object is one object that the dataplane does not hold as wanted.
type Object struct {
	Key      string `json:"key"`
	Reason   string `json:"reason"`
	Attempts int    `json:"attempts,omitempty"`
}

// Problem is an input that could not be used, and what to do about it.
type Problem struct {
	Object string `json:"object"`
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy,omitempty"`
}

// Without are the problems in a that are not in b, in the order of a: what is
// new, or what is over.
func Without(a, b []Problem) []Problem {
	in := make(map[Problem]bool, len(b))
	for _, p := range b {
		in[p] = true
	}
	var out []Problem
	for _, p := range a {
		if !in[p] {
			out = append(out, p)
		}
	}
	return out
}

func (p Problem) String() string {
	s := p.Object
	if p.Field != "" {
		s += ": " + p.Field
	}
	s += ": " + p.Reason
	if p.Remedy != "" {
		s += " (" + p.Remedy + ")"
	}
	return s
}
