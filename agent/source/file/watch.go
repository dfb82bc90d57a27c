package file

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/fsnotify/fsnotify"
	"github.com/sirupsen/logrus"
)

// watcher hears of changes in a folder. It is a hint only: where the kernel gives
// no signal (a network file system, too many watches), the periodic reading of
// the folder finds the change.
type watcher struct {
	dir string
	log logrus.FieldLogger
	fs  *fsnotify.Watcher
	// watched is the folder as it was when the watch was made: its path may
	// mean another one since.
	watched os.FileInfo
	// failed: the last attempt did; it is logged once.
	failed bool
	// events has a value for each change that counts.
	events chan struct{}
	stop   chan struct{}
	// gone is set when the folder that is watched was removed or moved away: a
	// new one may get the same inode.
	gone *atomic.Bool
}

func newWatcher(dir string, log logrus.FieldLogger) *watcher {
	return &watcher{dir: dir, log: log}
}

// ensure watches the folder that the path means now.
func (w *watcher) ensure() {
	info, err := os.Stat(w.dir)
	if err != nil {
		w.close()
		return
	}
	if w.fs != nil && !w.gone.Load() && os.SameFile(info, w.watched) {
		return
	}
	w.close()
	n, err := fsnotify.NewWatcher()
	if err == nil {
		if err = n.Add(w.dir); err != nil {
			n.Close()
		}
	}
	if err != nil {
		if !w.failed {
			w.log.WithError(err).WithField("folder", w.dir).Warn("cannot watch the folder; it is read periodically instead")
		}
		w.failed = true
		return
	}
	w.failed = false
	w.fs, w.watched = n, info
	w.events, w.stop, w.gone = make(chan struct{}), make(chan struct{}), new(atomic.Bool)
	go forward(n, filepath.Clean(w.dir), w.events, w.stop, w.gone)
}

// forward passes on which events count.
func forward(n *fsnotify.Watcher, dir string, events chan<- struct{}, stop <-chan struct{}, gone *atomic.Bool) {
	for {
		var counts bool
		select {
		case e, ok := <-n.Events:
			if !ok {
				return
			}
			counts = relevant(e)
			if filepath.Clean(e.Name) == dir && (e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename)) {
				gone.Store(true)
				counts = true
			}
		case _, ok := <-n.Errors:
			if !ok {
				return
			}
			counts = true // events were lost: read the folder
		}
		if !counts {
			continue
		}
		select {
		case events <- struct{}{}:
		case <-stop:
			return
		}
	}
}

// relevant leaves out temporary files, but not the ..data link by which
// Kubernetes swaps the contents of a mounted ConfigMap.
func relevant(e fsnotify.Event) bool {
	base := filepath.Base(e.Name)
	return !strings.HasPrefix(base, ".") || strings.HasPrefix(base, "..")
}

// watching says whether changes are heard of.
func (w *watcher) watching() bool { return w.fs != nil }

// signal has a value when something has changed; nil, which blocks, without a
// watch.
func (w *watcher) signal() <-chan struct{} { return w.events }

func (w *watcher) close() {
	if w.fs == nil {
		return
	}
	close(w.stop)
	w.fs.Close()
	w.fs, w.watched, w.events, w.stop, w.gone = nil, nil, nil, nil, nil
}
