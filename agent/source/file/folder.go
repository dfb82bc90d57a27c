package file

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sidewinder-net/sidewinder/agent/source"
	"github.com/sidewinder-net/sidewinder/agent/status"
)

const (
	// maxFileBytes is the size of a file from which on it is refused: 5,000
	// nodes as kubectl prints them take about 50 MB.
	maxFileBytes = 128 << 20
	// removalGrace is how long a file must be gone before its objects go:
	// some editors move the old file away before they write the new one.
	removalGrace = 100 * time.Millisecond
	// racyAge is the age from which on a file's change time tells all changes
	// apart: two writes within one tick of the kernel's clock look the same.
	racyAge = time.Second
)

// folder reads a folder of files and remembers what it has read: a file that has
// not changed is not parsed again, and of a file that cannot be used the last
// good objects are kept.
type folder struct {
	dir   string
	now   func() time.Time
	grace time.Duration

	mu    sync.Mutex
	files map[string]*file
}

// file is what is known of one file.
type file struct {
	stamp stamp
	// readAt is when the text was read, sum its hash; zero: it was not read.
	readAt time.Time
	sum    [sha256.Size]byte
	// entries are of the newest good text; ever says that there was one.
	entries []source.Entry
	ever    bool
	// problems of the newest text; empty: entries are of that text.
	problems []status.Problem
	// missing is since when the file is gone while all others can be used;
	// zero: it is there.
	missing time.Time
}

// stamp tells versions of a file apart without reading it.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

// view is the folder at one moment.
type view struct {
	// entries are those of good files and the last good ones of the others.
	entries []source.Entry
	// leaving are those of files that are gone, but not for long enough, or
	// while a file cannot be used that they may have been moved to.
	leaving []source.Entry
	// problems with single files.
	problems []status.Problem
	// unread says that a file was never good, so that its objects are unknown.
	unread bool
	// again is when to look again because a file is about to be given up;
	// zero: no need.
	again time.Time
}

func newFolder(dir string) *folder {
	return &folder{dir: dir, now: time.Now, grace: removalGrace, files: map[string]*file{}}
}

// scan reads what has changed. An error means that the folder itself cannot be
// read; nothing is forgotten then.
func (f *folder) scan() (view, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	names, err := f.list()
	if err != nil {
		return view{}, err
	}
	now := f.now()
	present := make(map[string]bool, len(names))
	unusable := false
	for _, name := range names {
		if f.read(name, now) {
			present[name] = true
			unusable = unusable || len(f.files[name].problems) > 0
		}
	}
	for name, file := range f.files {
		switch {
		case present[name]:
			file.missing = time.Time{}
		case file.missing.IsZero() || unusable:
			// The grace does not run while another file may hold the objects.
			file.missing = now
		}
		// A file that held nothing, or has been gone for long enough.
		if !file.missing.IsZero() && (len(file.entries) == 0 || !unusable && now.Sub(file.missing) >= f.grace) {
			delete(f.files, name)
		}
	}
	return f.view(unusable), nil
}

// list are the names of the files that count, in order.
func (f *folder) list() ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("folder of objects: %w", err)
	}
	var names []string
	for _, e := range entries {
		if isObjectFile(e.Name()) && !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// isObjectFile: names with a leading dot are temporary, or not meant for us.
func isObjectFile(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// read brings what is known of a file up to date, and says whether it is there.
func (f *folder) read(name string, now time.Time) bool {
	path := filepath.Join(f.dir, name)
	old := f.files[name]
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return false
	}
	if err == nil {
		if s := stampOf(info); old != nil && old.missing.IsZero() && s == old.stamp && old.readAt.Sub(time.Unix(s.ctime.Unix())) > racyAge {
			return true
		}
	}
	text, s, err := readText(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, lerr := os.Lstat(path); errors.Is(lerr, fs.ErrNotExist) {
			return false
		}
	}
	next := &file{stamp: s, readAt: now}
	if err == nil {
		next.sum = sha256.Sum256(text)
	}
	if old != nil {
		next.entries, next.ever = old.entries, old.ever
	}
	if err == nil && old != nil && next.sum == old.sum {
		next.problems = old.problems
	} else if err != nil {
		next.problems = []status.Problem{{Object: name, Reason: "cannot be read: " + reason(err)}}
	} else if entries, problems := parse(name, text); len(problems) > 0 {
		next.problems = problems
	} else {
		next.entries, next.ever = entries, true
	}
	f.files[name] = next
	return true
}

// readText reads a file that may be replaced or written meanwhile.
func readText(path string) ([]byte, stamp, error) {
	// A pipe or a device would block for ever: do not wait for a writer.
	h, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, stamp{}, err
	}
	defer h.Close()
	info, err := h.Stat()
	if err != nil {
		return nil, stamp{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, stampOf(info), errors.New("is not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(h, maxFileBytes+1))
	if err != nil {
		return nil, stampOf(info), err
	}
	if len(text) > maxFileBytes {
		return nil, stampOf(info), fmt.Errorf("is larger than %d bytes", maxFileBytes)
	}
	return text, stampOf(info), nil
}

func stampOf(info fs.FileInfo) stamp {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{}
	}
	return stamp{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// reason is an error without the path, which the message has already.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// view puts the files together. An object of a file that is gone for a moment
// gives way to the same object in a file that is there: it was moved. unusable
// says that a file which is there cannot be used: then none that is gone is
// given up.
func (f *folder) view(unusable bool) view {
	names := make([]string, 0, len(f.files))
	for name := range f.files {
		names = append(names, name)
	}
	sort.Strings(names)
	var v view
	present := map[string]bool{}
	anyMissing := false
	for _, name := range names {
		file := f.files[name]
		if !file.missing.IsZero() {
			anyMissing = true
			continue
		}
		v.entries = append(v.entries, file.entries...)
		v.problems = append(v.problems, file.problems...)
		if len(file.problems) > 0 {
			v.unread = v.unread || !file.ever
		}
	}
	if !anyMissing {
		return v
	}
	for _, e := range v.entries {
		present[e.ID()] = true
	}
	for _, name := range names {
		file := f.files[name]
		if file.missing.IsZero() {
			continue
		}
		before := len(v.leaving)
		for _, e := range file.entries {
			if !present[e.ID()] {
				v.leaving = append(v.leaving, e)
			}
		}
		if unusable {
			if kept := len(v.leaving) - before; kept > 0 {
				v.problems = append(v.problems, status.Problem{
					Object: name, Reason: fmt.Sprintf("is gone; %d of its objects stay in force, because a file that cannot be used may hold them now", kept),
					Remedy: "correct or remove the files that cannot be used",
				})
			}
			continue
		}
		if end := file.missing.Add(f.grace); v.again.IsZero() || end.Before(v.again) {
			v.again = end
		}
	}
	return v
}
