package tree

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ControlSocket is the file in the work directory on which a running lab takes
// commands from other terminals.
const ControlSocket = "control.sock"

// request asks to run a command inside. The three standard files come along as
// ancillary data, so that the command writes straight to the user's terminal;
// it runs as the lab's child and ends with it.
type request struct {
	Where string   `json:"where"`
	Argv  []string `json:"argv"`
	Cwd   string   `json:"cwd"`
	Term  string   `json:"term"`
}

type reply struct {
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"`
}

// Resolver makes the command for a place in the lab ("node1", "spine2").
type Resolver func(where, name string, args ...string) (*exec.Cmd, error)

// ServeControl answers Exec until the context ends.
func ServeControl(ctx context.Context, dir string, resolve Resolver) error {
	path := filepath.Join(dir, ControlSocket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("control socket %s: %w (set TMPDIR to a shorter path if it is too long)", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go serveOne(conn, resolve)
		}
	}()
	return nil
}

func serveOne(conn *net.UnixConn, resolve Resolver) {
	defer conn.Close()
	answer := func(r reply) { _ = json.NewEncoder(conn).Encode(r) }
	req, files, err := readRequest(conn)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		answer(reply{Code: exitEnter, Error: err.Error()})
		return
	}
	cmd, err := resolve(req.Where, req.Argv[0], req.Argv[1:]...)
	if err != nil {
		answer(reply{Code: exitEnter, Error: err.Error()})
		return
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	cmd.Dir = req.Cwd
	cmd.Env = os.Environ()
	if req.Term != "" {
		cmd.Env = append(cmd.Env, "TERM="+req.Term)
	}
	if err := cmd.Start(); err != nil {
		answer(reply{Code: exitEnter, Error: err.Error()})
		return
	}
	ended := make(chan struct{})
	go func() {
		// The client sends nothing more: its end means that it is gone.
		_, _ = io.Copy(io.Discard, conn)
		select {
		case <-ended:
		default:
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
	}()
	err = cmd.Wait()
	close(ended)
	code, err := exitCode(cmd.ProcessState, err)
	r := reply{Code: code}
	if err != nil {
		r.Error = err.Error()
	}
	answer(r)
}

func readRequest(conn *net.UnixConn) (request, []*os.File, error) {
	var req request
	buf := make([]byte, 64<<10)
	oob := make([]byte, unix.CmsgSpace(3*4))
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return req, nil, err
	}
	var files []*os.File
	if cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
		for _, m := range cmsgs {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				continue
			}
			for _, fd := range fds {
				unix.CloseOnExec(fd)
				files = append(files, os.NewFile(uintptr(fd), "client"))
			}
		}
	}
	if err := json.Unmarshal(buf[:n], &req); err != nil {
		return req, files, fmt.Errorf("control request: %w", err)
	}
	if len(files) != 3 || len(req.Argv) == 0 {
		return req, files, errors.New("control request: want a command and three files")
	}
	return req, files, nil
}

// Exec runs a command at a place inside a running lab, with this process's
// standard files, and returns its exit status.
func Exec(ctx context.Context, id, where string, argv []string) (int, error) {
	info, err := Find(id)
	if err != nil {
		return 0, err
	}
	if !info.Running {
		return 0, fmt.Errorf("lab %s: is not running; only its logs are left in %s", id, info.Dir)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(info.Dir, ControlSocket), Net: "unix"})
	if err != nil {
		return 0, fmt.Errorf("lab %s: is not up yet, or is ending: %w", id, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "/"
	}
	raw, err := json.Marshal(request{Where: where, Argv: argv, Cwd: cwd, Term: os.Getenv("TERM")})
	if err != nil {
		return 0, err
	}
	rights := unix.UnixRights(int(os.Stdin.Fd()), int(os.Stdout.Fd()), int(os.Stderr.Fd()))
	if _, _, err := conn.WriteMsgUnix(raw, rights, nil); err != nil {
		return 0, err
	}
	var r reply
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		if ctx.Err() != nil {
			return ExitInterrupted, nil
		}
		return 0, fmt.Errorf("lab %s: ended while the command ran: %w", id, err)
	}
	if r.Error != "" {
		return r.Code, errors.New(r.Error)
	}
	return r.Code, nil
}
