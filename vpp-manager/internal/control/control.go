// Package control is vpp-manager's own door: HTTP over a unix socket in the run
// directory, for the commands of the same program.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/supervise"
)

// ErrNoManager: no vpp-manager runs in the run directory.
var ErrNoManager = errors.New("vpp-manager does not run")

// Supervisor is what the door leads to.
type Supervisor interface {
	Restart(context.Context) (supervise.Report, error)
	Status() node.Manager
}

// Paths of the requests.
const (
	pathRestart = "/restart" // POST: answers a supervise.Report
	pathStatus  = "/status"  // GET: answers a node.Manager
)

// failure is the answer to what did not work.
type failure struct {
	Error string `json:"error"`
}

// Listen opens the socket, mode 0600. The run directory must be this process's
// own: a socket that lies there is of a manager that was killed.
func Listen(runDir string) (net.Listener, error) {
	path := filepath.Join(runDir, node.ManagerSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// Nobody else may connect between bind and chmod: the permissions of the
	// socket file are those of the descriptor at bind (unix(7)).
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var cerr error
		err := c.Control(func(fd uintptr) { cerr = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, cerr)
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("vpp-manager's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Serve answers until ctx ends.
func Serve(ctx context.Context, l net.Listener, s Supervisor) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathRestart, func(w http.ResponseWriter, r *http.Request) {
		report, err := s.Restart(r.Context())
		switch {
		case errors.Is(err, supervise.ErrRestarting):
			answer(w, http.StatusConflict, failure{err.Error()})
		case err != nil:
			answer(w, http.StatusInternalServerError, failure{err.Error()})
		default:
			answer(w, http.StatusOK, report)
		}
	})
	mux.HandleFunc("GET "+pathStatus, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, s.Status())
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		// Answers under way are still given.
		sctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(sctx) != nil {
			_ = srv.Close()
		}
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // whoever asked may have gone
}

// Restart asks the manager of a run directory for a planned restart, and waits
// for its end. ErrNoManager: there is none.
func Restart(ctx context.Context, runDir string) (supervise.Report, error) {
	var r supervise.Report
	err := call(ctx, runDir, http.MethodPost, pathRestart, &r)
	return r, err
}

// Status asks the manager of a run directory. ErrNoManager: there is none.
func Status(ctx context.Context, runDir string) (node.Manager, error) {
	var m node.Manager
	err := call(ctx, runDir, http.MethodGet, pathStatus, &m)
	return m, err
}

func call(ctx context.Context, runDir, method, path string, out any) error {
	socket := filepath.Join(runDir, node.ManagerSocket)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://vpp-manager"+path, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w in %s; start it, or name its run directory with --run-dir", ErrNoManager, runDir)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("vpp-manager did not answer in time; it goes on: see vpp-manager status --run-dir %s", runDir)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s is for the user that runs vpp-manager: %w", socket, err)
	case err != nil:
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var f failure
		if json.Unmarshal(raw, &f) != nil || f.Error == "" {
			f.Error = string(bytes.TrimSpace(raw))
		}
		return fmt.Errorf("vpp-manager: %s", f.Error)
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("vpp-manager's answer: %w", err)
	}
	return nil
}
