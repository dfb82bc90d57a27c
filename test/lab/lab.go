// Package lab is a cluster on one machine: nodes as network namespaces, each
// with a real agent (and VPP, where asked for) as separate processes, pods wired
// by running the real CNI plugin, and a fabric of routers with parallel paths
// between the nodes.
//
// A Lab lives inside a process tree of its own (package tree), which takes
// everything down with it. Tests use it so:
//
//	func TestMain(m *testing.M) { lab.Main(m) }
//
//	func TestX(t *testing.T) {
//		l, err := lab.New(lab.Options{Nodes: 2, Pods: 1, Paths: 2, BinDir: bin, Dir: t.TempDir(), Log: log})
//		...
//		defer l.Close()
//		err = l.Start(ctx)
//	}
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/test/lab/fabric"
	"github.com/sidewinder-net/sidewinder/test/lab/tree"
)

// Limits of a lab's size.
const (
	MinNodes, MaxNodes = 2, 20
	MinPods, MaxPods   = 1, 200
	MinPaths, MaxPaths = 1, 16
)

// DefaultMTU of the wires in bytes.
const DefaultMTU = 1500

// Program names that BinDir must hold.
const (
	binAgent   = "sidewinder-agent"
	binManager = "vpp-manager"
	binCNI     = "sidewinder-cni"
	binIPAM    = "host-local"
)

// minProcs is how many threads of a lab's program run at once at least.
const minProcs = 16

// giveThreads lets those who time packets run when they wake up from a system
// call, without waiting for another goroutine to make room: the operating system
// shares the processors out, and it knows who has priority.
func giveThreads() { runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), minProcs)) }

// Options describe a lab.
type Options struct {
	// Nodes, Pods (on each node) and Paths (spines) within the limits above.
	Nodes, Pods, Paths int
	// Dataplane of a node, config.DataplaneLinux or config.DataplaneVPP; nodes
	// count from 1. nil: the kernel everywhere.
	Dataplane func(node int) string
	// PodsOn is how many pods a node gets at the start. nil: Pods on each.
	PodsOn func(node int) int
	// UplinkDriver and PodDriver of nodes with VPP. Empty: the agent's defaults.
	UplinkDriver, PodDriver string
	// WithoutVPP: VPP is not started, although there are nodes that want it;
	// Node.StartVPP does so later.
	WithoutVPP bool
	// MTU of the wires in bytes. 0: DefaultMTU.
	MTU int
	// BinDir holds the programs, an absolute path.
	BinDir string
	// VPP is the path of the vpp program, for nodes that run it.
	VPP string
	// Dir takes objects, configuration and logs, an absolute path.
	Dir string
	Log logrus.FieldLogger
	// Step, where set, is called around each part of Start, to show progress.
	Step func(name string, do func() error) error
}

// Validate reports everything that is wrong with the options.
func (o Options) Validate() error {
	var errs []error
	within := func(field string, v, low, high int) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("%s: %d is not between %d and %d", field, v, low, high))
		}
	}
	within("nodes", o.Nodes, MinNodes, MaxNodes)
	within("pods", o.Pods, MinPods, MaxPods)
	within("paths", o.Paths, MinPaths, MaxPaths)
	if o.MTU != 0 {
		within("mtu", o.MTU, config.MinPodMTU+config.EncapOverhead, 9000)
	}
	for field, p := range map[string]string{"bin directory": o.BinDir, "work directory": o.Dir} {
		if !filepath.IsAbs(p) {
			errs = append(errs, fmt.Errorf("%s: %q is not an absolute path", field, p))
		}
	}
	need := []string{binAgent, binCNI, binIPAM}
	for i := 1; i <= o.Nodes && o.Dataplane != nil; i++ {
		switch d := o.Dataplane(i); d {
		case config.DataplaneLinux:
		case config.DataplaneVPP:
			if o.VPP == "" && !o.WithoutVPP {
				errs = append(errs, errors.New("vpp: a node is to run it, but no vpp program is given"))
			}
			if !slices.Contains(need, binManager) {
				need = append(need, binManager)
			}
		default:
			errs = append(errs, fmt.Errorf("dataplane of node %d: %q is not one of %q, %q", i, d, config.DataplaneLinux, config.DataplaneVPP))
		}
	}
	for _, name := range need {
		if _, err := os.Stat(filepath.Join(o.BinDir, name)); err != nil {
			errs = append(errs, fmt.Errorf("program %s: %w; build it first (make build)", name, err))
		}
	}
	return errors.Join(errs...)
}

// ErrOutside: a lab was asked for outside of a process tree (tree.Run).
var ErrOutside = errors.New("a lab can be made only inside a process tree of its own")

// Lab is a running cluster.
type Lab struct {
	opts   Options
	log    logrus.FieldLogger
	fabric *fabric.Fabric
	stop   context.CancelFunc
	igp    sync.WaitGroup

	mu    sync.Mutex
	nodes map[int]*Node
}

// New checks the options and makes the folders; Start does the rest.
func New(o Options) (*Lab, error) {
	if _, ok := tree.Current(); !ok {
		return nil, ErrOutside
	}
	if o.MTU == 0 {
		o.MTU = DefaultMTU
	}
	if o.Dataplane == nil {
		o.Dataplane = func(int) string { return config.DataplaneLinux }
	}
	if o.PodsOn == nil {
		o.PodsOn = func(int) int { return o.Pods }
	}
	if o.Step == nil {
		o.Step = func(_ string, do func() error) error { return do() }
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	giveThreads()
	l := &Lab{opts: o, log: o.Log, nodes: map[int]*Node{}}
	for _, d := range []string{l.objectsDir(), l.logsDir(), filepath.Join(o.Dir, "config"), filepath.Join(o.Dir, "ipam"), filepath.Join(o.Dir, "cni-cache")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	// A runtime finds a plugin by its network type.
	if err := os.MkdirAll(l.cniDir(), 0o755); err != nil {
		return nil, err
	}
	for kind, program := range map[string]string{networkType: binCNI, ipamType: binIPAM} {
		if err := os.Symlink(filepath.Join(o.BinDir, program), filepath.Join(l.cniDir(), kind)); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *Lab) cniDir() string { return filepath.Join(l.opts.Dir, "cni-bin") }

func (l *Lab) objectsDir() string { return filepath.Join(l.opts.Dir, "objects") }
func (l *Lab) logsDir() string    { return filepath.Join(l.opts.Dir, "logs") }

// ObjectsDir is the folder that the agents share.
func (l *Lab) ObjectsDir() string { return l.objectsDir() }

// Fabric is the network between the nodes.
func (l *Lab) Fabric() *fabric.Fabric { return l.fabric }

// Nodes are the nodes in the lab now, by number.
func (l *Lab) Nodes() []*Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*Node, 0, len(l.nodes))
	for _, n := range l.nodes {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b *Node) int { return a.ID - b.ID })
	return out
}

// Node gives one node, or nil.
func (l *Lab) Node(id int) *Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[id]
}

// Pods are all pods of all nodes.
func (l *Lab) Pods() []*Pod {
	var out []*Pod
	for _, n := range l.Nodes() {
		out = append(out, n.Pods()...)
	}
	return out
}

// Start makes the fabric, starts the nodes, waits for convergence and wires the
// pods. After an error the lab must be closed still.
func (l *Lab) Start(ctx context.Context) error {
	steps := []struct {
		name string
		do   func() error
	}{
		{fmt.Sprintf("fabric: %d spines, %d top-of-rack routers", l.opts.Paths, l.opts.Nodes), func() error { return l.startFabric() }},
		{"cluster objects: nodes and address pools", func() error { return l.writeCluster() }},
		{fmt.Sprintf("agents on %d nodes", l.opts.Nodes), func() error { return l.startNodes(ctx) }},
		{"agents agree: a policy to every node, both families", func() error { return l.WaitConverged(ctx) }},
		{fmt.Sprintf("pods wired by the CNI plugin: %d on each node", l.opts.Pods), func() error { return l.startPods(ctx) }},
	}
	for _, s := range steps {
		if err := l.opts.Step(s.name, s.do); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) startFabric() error {
	f, err := fabric.New(l.opts.Paths, l.opts.MTU)
	if err != nil {
		return err
	}
	l.fabric = f
	for i := 1; i <= l.opts.Nodes; i++ {
		if err := l.placeNode(i); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.igp.Go(func() { f.RunIGP(ctx, l.objectsDir(), l.nodeID, l.log) })
	return nil
}

func (l *Lab) nodeID(name string) (int, bool) {
	for _, n := range l.Nodes() {
		if n.Name == name {
			return n.ID, true
		}
	}
	return 0, false
}

func (l *Lab) startNodes(ctx context.Context) error {
	if err := l.each(func(n *Node) error { return n.prepare(ctx) }); err != nil {
		return err
	}
	// One after the other, so that locators are claimed in the order of names.
	for _, n := range l.Nodes() {
		if err := n.StartAgent(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) startPods(ctx context.Context) error {
	return l.each(func(n *Node) error {
		for range l.opts.PodsOn(n.ID) {
			if _, err := n.AddPod(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// each runs do for all nodes side by side.
func (l *Lab) each(do func(*Node) error) error {
	nodes := l.Nodes()
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	gate := make(chan struct{}, 4)
	for i, n := range nodes {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			errs[i] = do(n)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// AddNode puts one more node into a running lab and starts it, without pods.
func (l *Lab) AddNode(ctx context.Context, id int) (*Node, error) {
	if id < 1 || id > MaxNodes || l.Node(id) != nil {
		return nil, fmt.Errorf("node %d: is out of range or in the lab already", id)
	}
	if err := l.placeNode(id); err != nil {
		return nil, err
	}
	n := l.Node(id)
	if err := l.writeNode(n); err != nil {
		return nil, err
	}
	if err := n.prepare(ctx); err != nil {
		return nil, err
	}
	return n, n.StartAgent(ctx)
}

// RemoveNode takes a node away as when a machine is lost for good: its processes
// are killed, its wires cut, its pods gone, and the cluster forgets its objects.
func (l *Lab) RemoveNode(ctx context.Context, id int) error {
	n := l.Node(id)
	if n == nil {
		return fmt.Errorf("node %d: is not in the lab", id)
	}
	l.mu.Lock()
	delete(l.nodes, id)
	l.mu.Unlock()
	err := n.kill()
	err = errors.Join(err, l.forgetNode(n), n.dropPods(), l.fabric.RemoveNode(id))
	// Its disk is lost too: what comes in its place starts afresh.
	for _, dir := range []string{n.stateDir(), n.ipamDir(), n.cacheDir(), n.runDir()} {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// Close ends the processes and removes the namespaces. Files stay: they belong
// to whoever gave the directory.
func (l *Lab) Close() error {
	if l.stop != nil {
		l.stop()
	}
	l.igp.Wait()
	errs := []error{l.each(func(n *Node) error {
		err := n.stop()
		n.saveVPPLogs()
		// A later lab of the same program finds nothing of this one's there.
		return errors.Join(err, n.dropPods(), os.RemoveAll(n.runDir()))
	})}
	l.mu.Lock()
	clear(l.nodes)
	l.mu.Unlock()
	if l.fabric != nil {
		errs = append(errs, l.fabric.Close())
	}
	return errors.Join(errs...)
}
