package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"go.yaml.in/yaml/v3"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/cni/client"
	"github.com/sidewinder-net/sidewinder/test/lab/fabric"
	"github.com/sidewinder-net/sidewinder/test/lab/ns"
	"github.com/sidewinder-net/sidewinder/test/lab/tree"
)

// Node is one machine of the lab.
type Node struct {
	// ID counts from 1; Name is also the network namespace's.
	ID        int
	Name      string
	Dataplane string

	lab    *Lab
	client *client.Client

	mu      sync.Mutex
	agent   *process
	manager *process
	pods    map[string]*Pod
	nextPod int
}

// placeNode puts a node into the fabric.
func (l *Lab) placeNode(id int) error {
	n := &Node{ID: id, Name: fmt.Sprintf("node%d", id), Dataplane: l.opts.Dataplane(id), lab: l, pods: map[string]*Pod{}}
	n.client = client.New(n.Socket())
	l.mu.Lock()
	l.nodes[id] = n
	l.mu.Unlock()
	if err := l.fabric.AddNode(id, n.Name, n.Dataplane == config.DataplaneVPP); err != nil {
		return err
	}
	// As on any Kubernetes node before a network plugin comes.
	return ns.Sysctl(n.Name,
		[2]string{"net/ipv4/ip_forward", "1"},
		[2]string{"net/ipv6/conf/all/forwarding", "1"},
		[2]string{"net/ipv6/conf/default/forwarding", "1"})
}

// runDir is where a node's sockets are, on the lab's own /run.
func (n *Node) runDir() string { return filepath.Join("/run/sidewinder", n.Name) }

func (n *Node) stateDir() string { return filepath.Join(n.lab.opts.Dir, "state", n.Name) }
func (n *Node) ipamDir() string  { return filepath.Join(n.lab.opts.Dir, "ipam", n.Name) }
func (n *Node) cacheDir() string { return filepath.Join(n.lab.opts.Dir, "cni-cache", n.Name) }

// RecordsDir is where the agent keeps its pod records.
func (n *Node) RecordsDir() string { return filepath.Join(n.stateDir(), "endpoints") }

// AddressesDir is where the IPAM plugin keeps the addresses it gave.
func (n *Node) AddressesDir() string { return filepath.Join(n.ipamDir(), networkName) }

// Socket is the agent's.
func (n *Node) Socket() string { return filepath.Join(n.runDir(), "cni.sock") }

// VPPDir is where VPP's sockets are: api.sock for programs, cli.sock for vppctl.
func (n *Node) VPPDir() string { return filepath.Join(n.runDir(), "vpp") }

// Underlay is the node's own address.
func (n *Node) Underlay() netip.Addr { return fabric.NodeAddr(n.ID) }

// PodCIDRs are the prefixes given to the node.
func (n *Node) PodCIDRs() []netip.Prefix { return podCIDRs(n.ID) }

func (n *Node) logPath(what string) string {
	return filepath.Join(n.lab.logsDir(), n.Name+"-"+what+".log")
}

// prepare makes what the agent expects to find, with VPP running where the node
// has it.
func (n *Node) prepare(ctx context.Context) error {
	if err := os.MkdirAll(n.VPPDir(), 0o755); err != nil {
		return err
	}
	if n.Dataplane == config.DataplaneVPP && !n.lab.opts.WithoutVPP {
		return n.startVPP(ctx)
	}
	return nil
}

// writeConfig writes the agent's configuration file.
func (n *Node) writeConfig() (string, error) {
	c := config.Default()
	c.NodeName = n.Name
	c.Dataplane = n.Dataplane
	c.SourceDir = n.lab.objectsDir()
	c.StateDir = n.stateDir()
	c.Socket = n.Socket()
	c.Uplinks = []string{fabric.UplinkName}
	c.LogLevel = "debug"
	c.VPP.Socket = filepath.Join(n.VPPDir(), "api.sock")
	if d := n.lab.opts.UplinkDriver; d != "" {
		c.VPP.UplinkDriver = d
	}
	if d := n.lab.opts.PodDriver; d != "" {
		c.VPP.PodDriver = d
	}
	if err := c.Validate(); err != nil {
		return "", fmt.Errorf("configuration of %s: %w", n.Name, err)
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return "", err
	}
	raw, err := yaml.Marshal(c)
	if err != nil {
		return "", err
	}
	path := filepath.Join(n.lab.opts.Dir, "config", n.Name+".yaml")
	return path, os.WriteFile(path, raw, 0o644)
}

// StartAgent starts the node's agent and waits until it can wire pods.
func (n *Node) StartAgent(ctx context.Context) error {
	path, err := n.writeConfig()
	if err != nil {
		return err
	}
	n.mu.Lock()
	if n.agent != nil && n.agent.exited() == nil {
		n.mu.Unlock()
		return fmt.Errorf("agent of %s: is running already", n.Name)
	}
	p, err := startProcess(n.Name, "agent", n.logPath("agent"), filepath.Join(n.lab.opts.BinDir, binAgent), "--config", path)
	n.agent = p
	n.mu.Unlock()
	if err != nil {
		return err
	}
	return n.waitReady(ctx)
}

// KillAgent ends the agent with SIGKILL.
func (n *Node) KillAgent() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.agent == nil {
		return fmt.Errorf("agent of %s: is not running", n.Name)
	}
	if err := n.agent.exited(); err != nil {
		return err
	}
	n.agent.kill()
	n.agent = nil
	return nil
}

// PauseAgent stops the agent (SIGSTOP) for good: requests reach its socket and
// stay there. KillAgent ends it.
func (n *Node) PauseAgent() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.agent == nil {
		return fmt.Errorf("agent of %s: is not running", n.Name)
	}
	if err := n.agent.exited(); err != nil {
		return err
	}
	return n.agent.cmd.Process.Signal(syscall.SIGSTOP)
}

// Status asks the agent.
func (n *Node) Status(ctx context.Context) (status.Status, error) {
	var s status.Status
	err := n.client.Status(ctx, &s)
	return s, err
}

// Exec runs a command on the node and gives its standard output; the error has
// what it wrote to standard error.
func (n *Node) Exec(ctx context.Context, name string, args ...string) (string, error) {
	return execIn(ctx, n.Name, name, args...)
}

func execIn(ctx context.Context, where, name string, args ...string) (string, error) {
	cmd := tree.Command(ns.Path(where), where, name, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("%s: %s: %w", where, name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s: %s %s: %w: %s", where, name, strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// Command is a command at a place in the lab: a node, a pod or a router, by the
// name of its network namespace (tree.Resolver).
func (l *Lab) Command(where, name string, args ...string) (*exec.Cmd, error) {
	places, err := os.ReadDir(filepath.Dir(ns.Path(where)))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range places {
		if p.Name() == where {
			return tree.Command(ns.Path(where), where, name, args...), nil
		}
		names = append(names, p.Name())
	}
	return nil, fmt.Errorf("%q is no place in this lab; there are: %s", where, strings.Join(names, " "))
}

// alive says why a process of the node that should run does not.
func (n *Node) alive() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range []*process{n.manager, n.agent} {
		if p == nil {
			continue
		}
		if err := p.exited(); err != nil {
			return err
		}
	}
	return nil
}

// stop ends the node's processes in order: the agent, then VPP.
func (n *Node) stop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.client.Close()
	var errs []error
	for _, p := range []**process{&n.agent, &n.manager} {
		if *p != nil {
			errs = append(errs, (*p).stop())
			*p = nil
		}
	}
	return errors.Join(errs...)
}

// kill ends the node's processes: the agent as by a power cut, VPP by way of its
// manager, which alone knows its process.
func (n *Node) kill() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.client.Close()
	if n.agent != nil {
		n.agent.kill()
		n.agent = nil
	}
	if n.manager != nil {
		// Killed, the manager would leave VPP behind.
		err := n.manager.stop()
		n.manager = nil
		return err
	}
	return nil
}
