package linux

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// setSteering makes a route into the policy's nexthop group.
func (t *tx) setSteering(k dataplane.SteeringKey, v dataplane.Steering) error {
	if err := checkPrefix(k.Prefix); err != nil {
		return err
	}
	e := t.index.byBSID[v.BSID]
	if e == nil {
		return fmt.Errorf("policy %s does not exist: %w", v.BSID, dataplane.ErrNotReady)
	}
	err := t.steer(slot{k.Prefix, tableOrMain(k.Table), metricSteering}, e)
	t.stale(err)
	return err
}

// deleteSteering removes the route; an absent one is no error.
func (t *tx) deleteSteering(k dataplane.SteeringKey) error {
	t.users = nil
	return t.deleteRoute(slot{k.Prefix, tableOrMain(k.Table), metricSteering})
}

func (t *tx) steer(s slot, e *policyEntry) error {
	t.users = nil
	mtu := e.lockedMTU(t.podMTU)
	return t.putRoute(s, unix.RTN_UNICAST, func(m message) {
		m.u32(rtaNexthopID, e.group)
		if mtu != 0 {
			m.lockMTU(mtu)
		}
	})
}

// resteerPolicies rewrites the steering routes of policies whose overhead has
// changed, so that their MTU fits again.
func (t *tx) resteerPolicies() []error {
	if len(t.resteer) == 0 {
		return nil
	}
	routes, err := t.conn.steeringRoutes()
	if err != nil {
		return []error{err}
	}
	var errs []error
	for _, r := range routes {
		e := t.index.byGroup[r.nexthopID]
		if e == nil || !t.resteer[e.bsid] || e.lockedMTU(t.podMTU) == r.lockedMTU {
			continue
		}
		if err := t.steer(r.slot, e); err != nil {
			errs = append(errs, &dataplane.KeyError{Op: dataplane.OpUpdate, Key: r.steeringKey(), Err: err})
		}
	}
	return errs
}

// readUsers finds what is steered into which nexthop group, as the kernel has it
// now: an earlier change of this Apply, or somebody else, may have moved it.
func (t *tx) readUsers() error {
	if t.users != nil {
		return nil
	}
	routes, err := t.conn.steeringRoutes()
	if err != nil {
		return err
	}
	t.users = map[uint32]dataplane.SteeringKey{}
	for _, r := range routes {
		t.users[r.nexthopID] = r.steeringKey()
	}
	return nil
}

// steeringRoutes are our routes into nexthop groups, of all tables.
func (c *conn) steeringRoutes() ([]kernelRoute, error) {
	var routes []kernelRoute
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		from := len(routes)
		err := c.dumpRoutes(family, 0, Protocol, func() { routes = routes[:from] }, func(r kernelRoute) {
			if r.metric == metricSteering && r.nexthopID != 0 {
				routes = append(routes, r)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("reading steering routes: %w", err)
		}
	}
	return routes, nil
}

func (r kernelRoute) steeringKey() dataplane.SteeringKey {
	return dataplane.SteeringKey{Table: mainAsZero(r.table), Prefix: r.prefix}
}

// invalidBSID stands for a policy that a steering refers to and that is none of
// ours: it differs from every wanted one.
var invalidBSID = netip.Addr{}
