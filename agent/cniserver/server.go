// Package cniserver is the agent's side of the CNI plugin: it takes pod records
// over a unix socket, keeps them over restarts, and answers when the dataplane
// holds them. The wire format is package cni/api.
package cniserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/cni/api"
)

// Timeouts of the server, see Options to change the first.
const (
	// DefaultAwaitTimeout is below the plugin's own patience (api.WireTimeout),
	// so that the plugin hears the reason rather than nothing.
	DefaultAwaitTimeout = 20 * time.Second
	// releaseTimeout bounds the wait, in the background, for the dataplane to let
	// go of an endpoint that no request waits for.
	releaseTimeout = time.Minute
	shutdownGrace  = 3 * time.Second
)

// Options are the server's inputs. All functions must be safe for concurrent
// use.
type Options struct {
	// Socket is the path of the unix socket.
	Socket string
	// StateDir keeps the pod records, in StateDir/endpoints.
	StateDir string
	// Config gives what the plugin needs to make a pod's interface, or why that
	// is not known yet.
	Config func() (api.NodeConfig, error)
	// Ready says why pods cannot be wired at present; nil: they can.
	Ready func() error
	// Await blocks until the dataplane holds (present) or has let go of (not
	// present) an endpoint as Endpoints lists it at the time of the call.
	Await func(ctx context.Context, endpointID string, present bool) error
	// Status gives the agent's status document.
	Status func() status.Status
	// Resync compares everything with the dataplane and returns when done.
	Resync func(ctx context.Context) error
	Log    logrus.FieldLogger

	// AwaitTimeout bounds what one request waits: for other requests for the same
	// endpoint, and for Await. 0: DefaultAwaitTimeout.
	AwaitTimeout time.Duration
	// RecheckInterval is the time between looks at the records whose host
	// interface is gone. 0: DefaultRecheckInterval.
	RecheckInterval time.Duration
	// Lock is the name of the abstract unix socket that keeps a second agent out of
	// the network namespace. "": DefaultLock.
	Lock string
	// System answers questions about the machine. Nil: the real one.
	System System
}

// Server holds the pod records and serves them. Make one with New, then Run it
// or Close it.
type Server struct {
	opt     Options
	log     logrus.FieldLogger
	lock    *nodeLock
	store   *store
	socket  *listener
	keys    keyedMutex
	changed chan struct{}
	// releases are the waits that no request is held up by.
	releases background

	mu sync.Mutex
	// records are the endpoints to be programmed, by ID.
	records map[string]api.Endpoint
	// reserved are the owners' IDs of addresses and host interfaces, from
	// before a record is written until after it is removed.
	reservedIPs   map[netip.Addr]string
	reservedLinks map[string]string
	// bad are records that could not be used, and their files.
	bad []badRecord
	// vanished are the IDs of records whose host interface was gone at start.
	vanished map[string]bool
	stopping bool
}

// New takes the network namespace and the state folder for this process, loads
// the records, and makes the socket; requests wait there until Run. What another
// agent holds is an error that matches ErrInUse.
func New(opt Options) (_ *Server, err error) {
	if opt.Log == nil || opt.Config == nil || opt.Ready == nil || opt.Await == nil || opt.Status == nil || opt.Resync == nil {
		return nil, errors.New("cniserver: Options: Config, Ready, Await, Status, Resync and Log must all be set")
	}
	if opt.AwaitTimeout == 0 {
		opt.AwaitTimeout = DefaultAwaitTimeout
	}
	if opt.RecheckInterval == 0 {
		opt.RecheckInterval = DefaultRecheckInterval
	}
	if opt.System == nil {
		opt.System = realSystem{}
	}
	if opt.Lock == "" {
		opt.Lock = DefaultLock
	}
	if err := checkSocketPath(opt.Socket); err != nil {
		return nil, err
	}
	s := &Server{
		opt:           opt,
		log:           opt.Log,
		changed:       make(chan struct{}, 1),
		records:       map[string]api.Endpoint{},
		reservedIPs:   map[netip.Addr]string{},
		reservedLinks: map[string]string{},
		vanished:      map[string]bool{},
	}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if s.lock, err = takeLock(opt.Lock, opt.Log); err != nil {
		return nil, err
	}
	if s.store, err = openStore(opt.StateDir, opt.System.BootID()); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	if s.socket, err = listen(opt.Socket); err != nil {
		return nil, err
	}
	s.releases.begin()
	return s, nil
}

// release gives back what New took, the network namespace last.
func (s *Server) release() {
	s.releases.end()
	if s.socket != nil {
		s.socket.discard()
	}
	if s.store != nil {
		s.store.close()
	}
	if s.lock != nil {
		s.lock.release()
	}
}

// load reads the records of an earlier run. A record whose host interface is
// gone can never carry traffic again: it is dropped when the pod's namespace is
// gone as well, or the machine has been restarted since. While the namespace is
// still there it is kept and reported, so that an agent that looks into the
// wrong network namespace cannot throw away all pods at once.
func (s *Server) load() error {
	found, bad, err := s.store.load()
	if err != nil {
		return err
	}
	s.bad = bad
	for _, b := range bad {
		s.log.WithField("record", b.path).Warn("pod record set aside: " + b.problem.Reason)
	}
	for _, r := range found {
		ep := r.Endpoint
		log := s.log.WithFields(logrus.Fields{"endpoint": ep.ID(), "pod": podName(ep), "hostInterface": ep.HostInterface})
		link, err := s.opt.System.LinkExists(ep.HostInterface)
		if err != nil {
			return fmt.Errorf("pod record %s: hostInterface: looking for %s: %w", ep.ID(), ep.HostInterface, err)
		}
		if !link {
			if rebooted := r.BootID != s.store.bootID; rebooted || !s.opt.System.NetnsExists(ep.Netns) {
				if err := s.store.remove(ep.ID()); err != nil {
					return err
				}
				log.WithField("rebooted", rebooted).Info("pod record dropped: its host interface and its namespace are gone")
				continue
			}
			s.vanished[ep.ID()] = true
			log.Warn("pod record kept, but its host interface is gone")
		}
		if err := s.reserve(ep); err != nil {
			aside := s.store.setAside(ep.ID())
			s.bad = append(s.bad, badRecord{aside, status.Problem{
				Object: "pod record " + ep.ID(), Reason: err.Error(),
				Remedy: "restart the pod, then delete " + aside,
			}})
			log.WithError(err).Warn("pod record set aside: it contradicts another")
			continue
		}
		s.records[ep.ID()] = ep
	}
	return nil
}

// Run serves until the context ends. It returns nil after an orderly end, in
// which the socket is removed, and the reason otherwise.
func (s *Server) Run(ctx context.Context) error {
	defer s.release()
	// Requests outlive ctx by a moment, so that each gets an answer.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := s.httpServer(base)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.socket) }()
	rechecks := make(chan struct{})
	looking, stopLooking := context.WithCancel(ctx)
	go func() { defer close(rechecks); s.recheckLoop(looking) }()
	defer func() { stopLooking(); <-rechecks }() // Before the folder's lock is given up.
	s.log.WithFields(logrus.Fields{"socket": s.opt.Socket, "endpoints": len(s.Endpoints())}).Info("serving the CNI plugin")

	select {
	case err := <-served:
		return fmt.Errorf("socket %s: %w", s.opt.Socket, err)
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	s.socket.remove()
	cancel()
	s.releases.end()
	end, cancelEnd := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancelEnd()
	if err := srv.Shutdown(end); err != nil {
		_ = srv.Close()
	}
	if err := <-served; err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("socket %s: %w", s.opt.Socket, err)
	}
	return nil
}

// Close gives back what a server holds that is never run.
func (s *Server) Close() { s.release() }

// Endpoints lists the pods to be programmed, sorted by ID.
func (s *Server) Endpoints() []cluster.Endpoint {
	recs := s.list()
	out := make([]cluster.Endpoint, 0, len(recs))
	for _, ep := range recs {
		// Both were checked when the record was taken in.
		host, _ := dataplane.ParseMAC(ep.HostMAC)
		pod, _ := dataplane.ParseMAC(ep.PodMAC)
		out = append(out, cluster.Endpoint{
			ID: ep.ID(), Namespace: ep.Namespace, Name: ep.Name, IfName: ep.IfName, Netns: ep.Netns,
			HostInterface: ep.HostInterface, HostMAC: host, PodMAC: pod,
			IPs: slices.Clone(ep.IPs), MTU: uint16(ep.MTU), WholeChecksums: ep.WholeChecksums,
		})
	}
	return out
}

// Changed receives a value after Endpoints has changed. Several changes may be
// told as one.
func (s *Server) Changed() <-chan struct{} { return s.changed }

// Problems are the records that could not be used, and the pods that have lost
// their host interface. What a person has put right since is not among them.
func (s *Server) Problems() []status.Problem {
	s.recheck()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = slices.DeleteFunc(s.bad, badRecord.gone)
	var out []status.Problem
	for _, b := range s.bad {
		out = append(out, b.problem)
	}
	for id := range s.vanished {
		out = append(out, vanishedProblem(s.records[id]))
	}
	slices.SortFunc(out, func(a, b status.Problem) int { return strings.Compare(a.String(), b.String()) })
	return out
}

func (s *Server) list() []api.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]api.Endpoint, 0, len(s.records))
	for _, ep := range s.records {
		out = append(out, ep)
	}
	slices.SortFunc(out, func(a, b api.Endpoint) int { return strings.Compare(a.ID(), b.ID()) })
	return out
}

func (s *Server) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// podName is the pod as people know it, or its container.
func podName(ep api.Endpoint) string {
	if ep.Name == "" {
		return "container " + ep.ContainerID
	}
	return ep.Namespace + "/" + ep.Name
}
