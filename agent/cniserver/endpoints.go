package cniserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/cni/api"
)

// httpError is an api.Error with the HTTP status it travels under.
type httpError struct {
	code   int
	answer *api.Error
}

func (e *httpError) Error() string { return e.answer.Error() }
func (e *httpError) Unwrap() error { return e.answer }

func fail(code int, e api.Error) error { return &httpError{code, &e} }

// add takes in an endpoint, and returns when the dataplane holds it. On failure
// nothing is left of it, unless it was there before in exactly this form.
func (s *Server) add(ctx context.Context, ep api.Endpoint) error {
	if err := validate(ep); err != nil {
		return fail(http.StatusUnprocessableEntity, *err)
	}
	if err := s.opt.Ready(); err != nil {
		return unready(err)
	}
	wait, cancel := context.WithTimeout(ctx, s.opt.AwaitTimeout)
	defer cancel()
	unlock, err := s.keys.lock(wait, ep.ID())
	if err != nil {
		return fail(http.StatusServiceUnavailable, api.Error{Object: "endpoint " + ep.ID(), Reason: "another request for it is still running", Remedy: "try again", TryAgain: true})
	}
	defer unlock()

	s.mu.Lock()
	old, known := s.records[ep.ID()]
	s.mu.Unlock()
	same := known && reflect.DeepEqual(old, ep)
	if !same {
		if err := s.takeIn(ep); err != nil {
			return err
		}
	}
	if err := s.opt.Await(wait, ep.ID(), true); err != nil {
		if !same {
			s.giveUp(ep, err)
		}
		return awaitError(ep, err)
	}
	s.log.WithFields(logrus.Fields{"endpoint": ep.ID(), "pod": podName(ep), "hostInterface": ep.HostInterface, "ips": ep.IPs, "repeated": same}).Info("pod wired")
	s.dropReplaced(ep)
	return nil
}

// takeIn makes the endpoint part of what is to be programmed. The record is on
// disk before anyone can see it: whatever is programmed survives a restart.
func (s *Server) takeIn(ep api.Endpoint) error {
	if err := s.reserve(ep); err != nil {
		return err
	}
	if err := s.store.save(ep); err != nil {
		// What was there under this ID may be half replaced: forget it whole.
		_ = s.store.remove(ep.ID())
		s.drop(ep.ID())
		s.letGo(ep)
		return fail(http.StatusInternalServerError, api.Error{
			Object: "endpoint " + ep.ID(), Reason: err.Error(),
			Remedy: "make the agent's state folder writable and see that its disk is not full", TryAgain: true,
		})
	}
	s.mu.Lock()
	s.records[ep.ID()] = ep
	delete(s.vanished, ep.ID())
	s.mu.Unlock()
	s.notify()
	return nil
}

// giveUp takes an endpoint back whose wiring failed or whose caller has gone. The
// dataplane may take longer to let go of it than the caller has patience.
func (s *Server) giveUp(ep api.Endpoint, cause error) {
	log := s.log.WithFields(logrus.Fields{"endpoint": ep.ID(), "pod": podName(ep)})
	log.WithError(cause).Warn("pod not wired; its record is removed again")
	if err := s.store.remove(ep.ID()); err != nil {
		log.WithError(err).Error("pod record cannot be removed; it would come back at the next start")
	}
	s.drop(ep.ID())
	s.letGo(ep)
}

// remove forgets an endpoint and returns when the dataplane has let go of it.
// One that is not known is no error, but is waited for all the same: an earlier
// request may have been given up, or an earlier run of the agent may have removed
// the record and ended before the dataplane had let go.
func (s *Server) remove(ctx context.Context, id string) error {
	s.recheck()
	wait, cancel := context.WithTimeout(ctx, s.opt.AwaitTimeout)
	defer cancel()
	unlock, err := s.keys.lock(wait, id)
	if err != nil {
		return fail(http.StatusServiceUnavailable, api.Error{Object: "endpoint " + id, Reason: "another request for it is still running", Remedy: "try again", TryAgain: true})
	}
	defer unlock()
	s.mu.Lock()
	ep, known := s.records[id]
	s.mu.Unlock()
	if known {
		if err := s.store.remove(id); err != nil {
			return fail(http.StatusInternalServerError, api.Error{
				Object: "endpoint " + id, Reason: err.Error(),
				Remedy: "make the agent's state folder writable", TryAgain: true,
			})
		}
		s.drop(id)
	}
	if err := s.awaitGone(wait, id); err != nil {
		ep.ContainerID, ep.IfName = splitID(id)
		return awaitError(ep, err)
	}
	if known {
		s.log.WithFields(logrus.Fields{"endpoint": id, "pod": podName(ep)}).Info("pod removed")
	}
	return nil
}

// awaitGone waits until the dataplane has let go of an endpoint. When the agent
// is ending nobody programs any more: the next start does it.
func (s *Server) awaitGone(ctx context.Context, id string) error {
	s.mu.Lock()
	stopping := s.stopping
	s.mu.Unlock()
	if stopping {
		return errors.New("the agent is stopping")
	}
	return s.opt.Await(ctx, id, false)
}

// letGo waits in the background until the dataplane has let go of an endpoint
// that has been dropped. It holds up no other request for the endpoint: a DELETE
// waits for the same by itself, and a new ADD ends it.
func (s *Server) letGo(ep api.Endpoint) {
	s.releases.run(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
		defer cancel()
		err := s.awaitGone(ctx, ep.ID())
		s.mu.Lock()
		_, again := s.records[ep.ID()]
		stopping := s.stopping
		s.mu.Unlock()
		if err != nil && !again && !stopping {
			s.log.WithFields(logrus.Fields{"endpoint": ep.ID(), "pod": podName(ep)}).WithError(err).
				Warn("the dataplane has not let go of the pod yet; it is tried again")
		}
	})
}

// drop takes a record out of what is to be programmed, and frees what it held.
func (s *Server) drop(id string) {
	s.mu.Lock()
	delete(s.records, id)
	delete(s.vanished, id)
	s.releaseLocked(id)
	s.mu.Unlock()
	s.notify()
}

// reserve claims the endpoint's addresses and host interface. Another pod that
// holds one of them is a conflict, unless that pod's interface is gone: then it
// is a leftover, and makes room.
func (s *Server) reserve(ep api.Endpoint) error {
	for {
		other, conflict := s.tryReserve(ep)
		if conflict == nil {
			return nil
		}
		link, err := s.opt.System.LinkExists(other.HostInterface)
		if err != nil || link || other.HostInterface == "" || other.HostInterface == ep.HostInterface {
			return conflict
		}
		if err := s.store.remove(other.ID()); err != nil {
			return conflict
		}
		s.log.WithFields(logrus.Fields{"endpoint": other.ID(), "pod": podName(other), "by": podName(ep)}).
			Warn("pod record dropped: its host interface is gone and another pod has its address")
		s.drop(other.ID())
		s.letGo(other)
	}
}

// tryReserve claims all or nothing, and says who is in the way.
func (s *Server) tryReserve(ep api.Endpoint) (api.Endpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := ep.ID()
	for i, ip := range ep.IPs {
		if owner, ok := s.reservedIPs[ip]; ok && owner != id {
			return s.records[owner], fail(http.StatusConflict, api.Error{
				Object: "endpoint " + id, Field: fmt.Sprintf("ips[%d]", i),
				Reason: fmt.Sprintf("%s belongs to pod %s (endpoint %s)", ip, podName(s.ownerLocked(owner)), owner),
				Remedy: "two pods were given one address: check the IPAM plugin's store, or delete the other pod",
			})
		}
	}
	if owner, ok := s.reservedLinks[ep.HostInterface]; ok && owner != id {
		return s.records[owner], fail(http.StatusConflict, api.Error{
			Object: "endpoint " + id, Field: "hostInterface",
			Reason: fmt.Sprintf("%s belongs to pod %s (endpoint %s)", ep.HostInterface, podName(s.ownerLocked(owner)), owner),
			Remedy: "delete the other pod",
		})
	}
	s.releaseLocked(id)
	for _, ip := range ep.IPs {
		s.reservedIPs[ip] = id
	}
	s.reservedLinks[ep.HostInterface] = id
	return api.Endpoint{}, nil
}

// ownerLocked is the endpoint with this ID, or one that has only the ID while
// its request is still being taken in.
func (s *Server) ownerLocked(id string) api.Endpoint {
	if ep, ok := s.records[id]; ok {
		return ep
	}
	var ep api.Endpoint
	ep.ContainerID, ep.IfName = splitID(id)
	return ep
}

func (s *Server) releaseLocked(id string) {
	for ip, owner := range s.reservedIPs {
		if owner == id {
			delete(s.reservedIPs, ip)
		}
	}
	for link, owner := range s.reservedLinks {
		if owner == id {
			delete(s.reservedLinks, link)
		}
	}
}

// unready is the answer while the agent cannot wire pods.
func unready(err error) error {
	var e *api.Error
	if errors.As(err, &e) {
		c := *e
		c.TryAgain = true
		return fail(http.StatusServiceUnavailable, c)
	}
	return fail(http.StatusServiceUnavailable, api.Error{
		Object: "agent", Reason: "not ready: " + err.Error(),
		Remedy: "it is tried again; see the agent's status if it lasts", TryAgain: true,
	})
}

// awaitError turns a failure of the dataplane into an answer.
func awaitError(ep api.Endpoint, err error) error {
	var e *api.Error
	if errors.As(err, &e) {
		return fail(http.StatusBadGateway, *e)
	}
	out := api.Error{Object: "endpoint " + ep.ID(), Reason: "the dataplane failed: " + err.Error(), TryAgain: true,
		Remedy: "see the agent's status and log"}
	code := http.StatusBadGateway
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		code = http.StatusGatewayTimeout
		out.Reason = "the dataplane was not ready with it in time"
		if msg := err.Error(); msg != context.DeadlineExceeded.Error() {
			out.Reason += ": " + msg
		}
	case errors.Is(err, context.Canceled):
		code = http.StatusServiceUnavailable
		out.Reason = "the request was given up"
	case errors.Is(err, dataplane.ErrUnsupported):
		out.TryAgain = false
	}
	return fail(code, out)
}
