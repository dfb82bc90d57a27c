package cniserver

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/cni/api"
)

// DefaultRecheckInterval is how soon a pod record goes whose host interface and
// namespace are gone.
const DefaultRecheckInterval = 30 * time.Second

// recheckLoop looks again at the records that have lost their host interface,
// until ctx ends.
func (s *Server) recheckLoop(ctx context.Context) {
	t := time.NewTicker(s.opt.RecheckInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.recheck()
		}
	}
}

// recheck drops the records without a host interface whose namespace is gone by
// now, and no longer reports those whose interface is there. It waits for nobody:
// a record that a request is working on is left for the next time.
func (s *Server) recheck() {
	s.mu.Lock()
	ids := make([]string, 0, len(s.vanished))
	for id := range s.vanished {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	for _, id := range ids {
		if unlock, ok := s.keys.tryLock(id); ok {
			s.recheckOne(id)
			unlock()
		}
	}
}

// recheckOne is called with the endpoint's key locked.
func (s *Server) recheckOne(id string) {
	s.mu.Lock()
	ep, known := s.records[id]
	known = known && s.vanished[id]
	s.mu.Unlock()
	if !known {
		return
	}
	log := s.log.WithFields(logrus.Fields{"endpoint": id, "pod": podName(ep), "hostInterface": ep.HostInterface})
	link, err := s.opt.System.LinkExists(ep.HostInterface)
	switch {
	case err != nil:
		log.WithError(err).Warn("cannot look for the pod's host interface")
	case link:
		s.mu.Lock()
		delete(s.vanished, id)
		s.mu.Unlock()
		log.Info("the pod's host interface is there again")
	case !s.opt.System.NetnsExists(ep.Netns):
		s.dropVanished(log, ep, "its host interface and its namespace are gone")
	}
}

// dropReplaced drops the records without a host interface that belong to an
// earlier sandbox of the same pod: the runtime has given that one up.
func (s *Server) dropReplaced(by api.Endpoint) {
	if by.Name == "" {
		return
	}
	s.mu.Lock()
	var ids []string
	for id := range s.vanished {
		ep := s.records[id]
		if id != by.ID() && ep.Namespace == by.Namespace && ep.Name == by.Name && ep.IfName == by.IfName && ep.Network == by.Network {
			ids = append(ids, id)
		}
	}
	s.mu.Unlock()
	for _, id := range ids {
		unlock, ok := s.keys.tryLock(id)
		if !ok {
			continue
		}
		s.mu.Lock()
		ep, still := s.records[id], s.vanished[id]
		s.mu.Unlock()
		if still {
			s.dropVanished(s.log.WithFields(logrus.Fields{"endpoint": id, "pod": podName(by), "by": by.ID()}), ep,
				"its host interface is gone and the pod has a new sandbox")
		}
		unlock()
	}
}

func (s *Server) dropVanished(log logrus.FieldLogger, ep api.Endpoint, why string) {
	if err := s.store.remove(ep.ID()); err != nil {
		log.WithError(err).Error("pod record cannot be removed; it is tried again")
		return
	}
	s.drop(ep.ID())
	s.letGo(ep)
	log.Info("pod record dropped: " + why)
}

func vanishedProblem(ep api.Endpoint) status.Problem {
	return status.Problem{
		Object: "endpoint " + ep.ID(), Field: "hostInterface",
		Reason: fmt.Sprintf("%s of pod %s does not exist any more", ep.HostInterface, podName(ep)),
		Remedy: fmt.Sprintf("delete the pod: its replacement gets a new interface; if the pod is gone already, remove what is left of it: %s", removeNetns(ep.Netns)),
	}
}

// removeNetns is how a person removes a network namespace. The ip command knows
// those in its own folder by name.
func removeNetns(path string) string {
	path = filepath.Clean(path)
	dir := filepath.Dir(path)
	switch {
	case dir == "/run/netns" || dir == "/var/run/netns":
		return "ip netns delete " + filepath.Base(path)
	case strings.HasPrefix(path, "/proc/"):
		return "end the process whose network namespace is " + path
	}
	return fmt.Sprintf("umount %[1]s && rm %[1]s", path)
}
