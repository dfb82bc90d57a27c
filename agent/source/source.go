// Package source says what a source of cluster state gives, whether it reads a
// folder of files or an API server, and holds the checks that all of them share.
package source

import (
	"context"
	"net/netip"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/publish"
	"github.com/sidewinder-net/sidewinder/agent/status"
)

// Objects are the cluster's objects at one moment. What people write is free of
// contradictions; what agents wrote may be out of date and contradict anything.
// Whoever gets them must not change them.
type Objects struct {
	// Nodes by name.
	Nodes map[string]cluster.Node
	// SRv6Nodes by node name.
	SRv6Nodes map[string]cluster.SRv6Node
	// Locators give the holder's name of each claimed locator.
	Locators map[netip.Prefix]string
	// Pools by name.
	Pools map[string]cluster.Pool
	// Pods by namespace/name.
	Pods map[string]cluster.Pod
}

// Source is where cluster state comes from and where a node's own facts go.
type Source interface {
	// Run follows the objects until ctx ends, and then returns nil. Another
	// error means that following them is not possible at all. Objects that
	// cannot be used are no reason to return: see Errors.
	Run(ctx context.Context) error
	// Objects are the newest ones without contradictions. While synced is
	// false, objects may be missing that have not been read yet, or none is
	// there: what they do not name must not be removed from the dataplane.
	// Once true, synced stays true.
	Objects() (objs Objects, synced bool)
	// Changed gets a value when Objects or Errors have changed. Changes that
	// nobody took in time are joined into one. It is never closed. There is
	// one receiver.
	Changed() <-chan struct{}
	// Errors are the inputs that cannot be used at present, in a fixed order.
	Errors() []status.Problem

	publish.Store
}

// newObjects has maps that are empty, not nil.
func newObjects() Objects {
	return Objects{
		Nodes:     map[string]cluster.Node{},
		SRv6Nodes: map[string]cluster.SRv6Node{},
		Locators:  map[netip.Prefix]string{},
		Pools:     map[string]cluster.Pool{},
		Pods:      map[string]cluster.Pod{},
	}
}
