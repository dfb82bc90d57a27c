package lab

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/sidewinder-net/sidewinder/test/lab/ns"
	"github.com/sidewinder-net/sidewinder/test/lab/tree"
)

// process is a program that runs on a node, with its output in a file.
type process struct {
	name, logPath string
	cmd           *exec.Cmd
	done          chan struct{}
	err           error // valid after done
}

// startProcess runs a program in a node's namespaces. Output is appended, so
// that a restart keeps what came before.
func startProcess(node, name, logPath, program string, args ...string) (*process, error) {
	out, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{name: name + " of " + node, logPath: logPath, done: make(chan struct{})}
	p.cmd = tree.Command(ns.Path(node), node, program, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// exited says why a process that should run does not; nil while it runs.
func (p *process) exited() error {
	select {
	case <-p.done:
		why := "status 0"
		if p.err != nil {
			why = p.err.Error()
		}
		return fmt.Errorf("%s has ended (%s); last words in %s:\n%s", p.name, why, p.logPath, lastLines(p.logPath, 8))
	default:
		return nil
	}
}

// kill ends the process at once, without a chance to tidy up.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stopTimeout is how long a process has to end when asked.
const stopTimeout = 10 * time.Second

// stop asks the process to end, and kills it when it does not.
func (p *process) stop() error {
	if p.exited() != nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(stopTimeout):
		p.kill()
		return fmt.Errorf("%s did not end within %s of SIGTERM and was killed; see %s", p.name, stopTimeout, p.logPath)
	}
}

func lastLines(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		lines = append(lines, "  "+s.Text())
		if len(lines) > n {
			lines = lines[1:]
		}
	}
	return strings.Join(lines, "\n")
}
