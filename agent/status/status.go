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

	Source    Source    `json:"source"`
	Reconcile Reconcile `json:"reconcile"`
	// Problems are inputs that could not be used.
	Problems []Problem `json:"problems,omitempty"`
}

// Dataplane is the packet path in use.
type Dataplane struct {
	Kind    string `json:"kind"`
	Version string `json:"version,omitempty"`
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
