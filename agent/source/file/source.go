// Package file is a source of cluster state without Kubernetes: a folder of YAML
// files, watched. It holds the same kinds with the same field names as a
// Kubernetes cluster: v1 Node and Pod, projectcalico.org/v3 IPPool,
// sidewinder.io/v1alpha1 SRv6Locator and SRv6Node, and v1 List of these. What
// "kubectl get … -o yaml" prints works unmodified. Files end in .yaml, .yml or
// .json; names with a leading dot are ignored, and so are folders within.
//
// What is wrong never removes anything:
//   - Of a file that cannot be used (half-written, empty, an unknown kind or
//     field, a wrong value) the last good objects stay in force.
//   - While a file cannot be used, the objects of files that are removed stay too:
//     they may have been moved into it.
//   - While Nodes, Pods or IPPools contradict each other, the whole last good
//     state stays. What agents write is no reason for that.
//   - While the folder is gone or unreadable, the same. An empty folder that is
//     there is a good state: a cluster without objects. To take a file's objects
//     away, remove the file.
//   - Until all files have been good once, together, the state is not synced.
package file

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/agent/source"
	"github.com/sidewinder-net/sidewinder/agent/status"
)

// Config is what a source needs to know.
type Config struct {
	// Dir is the folder. It must exist when objects are to be read or written;
	// it is not created.
	Dir string
	// NodeName is this node's name.
	NodeName string
	// Block is the cluster's SID block, a /32.
	Block netip.Prefix
	// Relist is the time between readings of the folder without a signal from
	// the kernel. 0: 10 s.
	Relist time.Duration
}

// debounce is how long the folder must be quiet before it is read after a
// change, and maxDebounce how long a busy one is waited for.
const (
	debounce      = 20 * time.Millisecond
	maxDebounce   = 200 * time.Millisecond
	defaultRelist = 10 * time.Second
	// unwatched is the time between readings while there is no folder to watch.
	unwatched = time.Second
)

// Source watches the folder. Its methods may be called at the same time.
type Source struct {
	cfg     Config
	log     logrus.FieldLogger
	folder  *folder
	changed chan struct{}
	// write keeps this process's own writes apart.
	write sync.Mutex

	mu       sync.Mutex
	objs     source.Objects
	synced   bool
	problems []status.Problem
}

var _ source.Source = (*Source)(nil)

// New does not touch the folder yet: see Run.
func New(cfg Config, log logrus.FieldLogger) *Source {
	if cfg.Relist <= 0 {
		cfg.Relist = defaultRelist
	}
	return &Source{cfg: cfg, log: log, folder: newFolder(cfg.Dir), changed: make(chan struct{}, 1)}
}

// Run implements source.Source.
func (s *Source) Run(ctx context.Context) error {
	w := newWatcher(s.cfg.Dir, s.log)
	defer w.close()
	relist := time.NewTicker(s.cfg.Relist)
	defer relist.Stop()
	for {
		// Watch first, then read: what changes after the reading is signalled.
		w.ensure()
		again := s.refresh()
		if !w.watching() && again.IsZero() {
			again = time.Now().Add(unwatched)
		}
		if !s.wait(ctx, w, relist.C, again) {
			return nil
		}
	}
}

// wait returns true when the folder is to be read again, false at the end.
func (s *Source) wait(ctx context.Context, w *watcher, relist <-chan time.Time, again time.Time) bool {
	var due <-chan time.Time
	if !again.IsZero() {
		t := time.NewTimer(time.Until(again))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-relist:
		return true
	case <-due:
		return true
	case <-w.signal():
		return s.settle(ctx, w)
	}
}

// settle waits until the folder is quiet.
func (s *Source) settle(ctx context.Context, w *watcher) bool {
	end := time.NewTimer(maxDebounce)
	defer end.Stop()
	quiet := time.NewTimer(debounce)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-end.C:
			return true
		case <-quiet.C:
			return true
		case <-w.signal():
			quiet.Reset(debounce)
		}
	}
}

// refresh reads the folder and takes the new state in, if it is good. It says
// when to read again; zero: at the next signal.
func (s *Source) refresh() time.Time {
	v, err := s.folder.scan()
	if err != nil {
		s.take(nil, false, []status.Problem{{
			Object: s.cfg.Dir, Reason: reason(err),
			Remedy: "make the folder readable; until then the last good objects stay in force",
		}})
		return time.Time{}
	}
	objs, ok, problems := source.Assemble(slices.Concat(v.entries, v.leaving), source.Options{Block: s.cfg.Block})
	problems = slices.Concat(v.problems, problems)
	source.SortProblems(problems)
	if !ok {
		s.take(nil, false, problems)
	} else {
		s.take(&objs, !v.unread, problems)
	}
	return v.again
}

// take makes a state the current one. Without objs the last one stays; whole says
// that no file's objects are unknown.
func (s *Source) take(objs *source.Objects, whole bool, problems []status.Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	synced := s.synced || (objs != nil && whole)
	differs := synced != s.synced || (objs != nil && !reflect.DeepEqual(*objs, s.objs))
	worse := !slices.Equal(problems, s.problems)
	if worse {
		s.logProblems(problems)
	}
	if objs != nil && differs {
		s.objs = *objs
	}
	s.synced, s.problems = synced, problems
	if differs || worse {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
}

// logProblems logs those that are new, once, and says when all is well again.
func (s *Source) logProblems(problems []status.Problem) {
	for _, p := range status.Without(problems, s.problems) {
		s.log.WithField("folder", s.cfg.Dir).Warn(p.String())
	}
	if len(problems) == 0 {
		s.log.WithField("folder", s.cfg.Dir).Info("all objects can be used again")
	}
}

// Objects implements source.Source.
func (s *Source) Objects() (source.Objects, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objs, s.synced
}

// Changed implements source.Source.
func (s *Source) Changed() <-chan struct{} { return s.changed }

// Errors implements source.Source.
func (s *Source) Errors() []status.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]status.Problem(nil), s.problems...)
}
