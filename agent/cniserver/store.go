package cniserver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/cni/api"
)

// ErrInUse: another agent holds the state folder or the socket.
var ErrInUse = errors.New("in use by another agent")

// recordVersion changes when the meaning of a stored field changes.
const recordVersion = 1

// suffixes of the files in the store.
const (
	suffixRecord = ".json"
	suffixTemp   = ".tmp"
	suffixBad    = ".bad"
)

// record is what a file holds.
type record struct {
	Version int `json:"version"`
	// BootID of the machine when the record was written: after a restart of the
	// machine no link of before can still be there.
	BootID   string       `json:"bootID,omitempty"`
	Endpoint api.Endpoint `json:"endpoint"`
}

// store is a folder with one file for each endpoint. A file is replaced whole
// or not at all, and its content is on the disk before it gets its name. The
// folder itself is not synchronised: what a power failure undoes there belongs
// to pods that it has ended as well, which load finds out.
type store struct {
	dir    string
	bootID string
	lock   *os.File
}

// openStore makes the folder and takes its lock, which ends with the process.
func openStore(stateDir, bootID string) (*store, error) {
	if !filepath.IsAbs(stateDir) {
		return nil, fmt.Errorf("state folder: %q is not an absolute path", stateDir)
	}
	dir := filepath.Join(stateDir, "endpoints")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, fmt.Errorf("state folder %s: %w (stop the other one, or give this one its own stateDir)", dir, err)
	}
	return &store{dir: dir, bootID: bootID, lock: lock}, nil
}

func (s *store) close() { _ = s.lock.Close() }

// path is the file of an endpoint: readable at its start, unique at its end.
func (s *store) path(id string) string {
	sum := sha256.Sum256([]byte(id))
	head := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
			return r
		}
		return '-'
	}, id[:min(len(id), 12)])
	return filepath.Join(s.dir, head+"."+hex.EncodeToString(sum[:10])+suffixRecord)
}

func (s *store) save(ep api.Endpoint) error {
	raw, err := json.Marshal(record{Version: recordVersion, BootID: s.bootID, Endpoint: ep})
	if err != nil {
		return fmt.Errorf("pod record: %w", err)
	}
	path := s.path(ep.ID())
	if err := writeSynced(path+suffixTemp, raw); err != nil {
		_ = os.Remove(path + suffixTemp)
		return fmt.Errorf("pod record: %w", err)
	}
	if err := os.Rename(path+suffixTemp, path); err != nil {
		_ = os.Remove(path + suffixTemp)
		return fmt.Errorf("pod record: %w", err)
	}
	return nil
}

func writeSynced(path string, raw []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// remove deletes a record; an absent one is no error.
func (s *store) remove(id string) error {
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pod record: %w", err)
	}
	return nil
}

// setAside renames a record so that it is neither used nor lost, and returns
// its new path.
func (s *store) setAside(id string) string { return setAside(s.path(id)) }

func setAside(path string) string {
	aside := strings.TrimSuffix(path, suffixRecord) + suffixBad
	if err := os.Rename(path, aside); err != nil {
		return path
	}
	return aside
}

// load reads all records in the order of their file names. Those that cannot
// be used are set aside and reported, at this and at each later start.
func (s *store) load() ([]record, []badRecord, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("state folder: %w", err)
	}
	var out []record
	var bad []badRecord
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		switch filepath.Ext(e.Name()) {
		case suffixTemp: // Half written when the agent ended; never answered.
			_ = os.Remove(path)
		case suffixBad:
			bad = append(bad, newBadRecord(path, "set aside at an earlier start"))
		case suffixRecord:
			r, err := readRecord(path)
			if err == nil && s.path(r.Endpoint.ID()) != path {
				err = fmt.Errorf("the file's name does not belong to endpoint %s", r.Endpoint.ID())
			}
			if err != nil {
				bad = append(bad, newBadRecord(setAside(path), err.Error()))
				continue
			}
			out = append(out, r)
		}
	}
	return out, bad, nil
}

// badRecord is a file that is set aside.
type badRecord struct {
	path    string
	problem status.Problem
}

func newBadRecord(path, reason string) badRecord {
	return badRecord{path, status.Problem{
		Object: "pod record " + path, Reason: "cannot be used: " + reason,
		Remedy: "restart the pod named in it, then delete the file",
	}}
}

// gone: somebody has removed the file.
func (b badRecord) gone() bool {
	_, err := os.Lstat(b.path)
	return errors.Is(err, fs.ErrNotExist)
}

func readRecord(path string) (record, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return record{}, err
	}
	if r.Version != recordVersion {
		return record{}, fmt.Errorf("version: %d is not %d", r.Version, recordVersion)
	}
	if e := validate(r.Endpoint); e != nil {
		return record{}, e
	}
	return r, nil
}
