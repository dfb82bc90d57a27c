package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/containernetworking/plugins/pkg/testutils"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/agent/cniserver"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/cni/api"
	"github.com/sidewinder-net/sidewinder/cni/client"
	"github.com/sidewinder-net/sidewinder/cni/plugin"
)

// testMTU is what the stub agent gives.
const testMTU = 1460

// fakeIPAM is a stand-in for calico-ipam: a link to the test's own binary.
const fakeIPAM = "calico-ipam"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == fakeIPAM {
		os.Exit(runFakeIPAM())
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// built are the binaries, made once.
var built struct {
	sync.Once
	dir string
	err error
}

// binaries builds the plugin (as "sidewinder"), host-local and ptp, and returns
// their folder.
func binaries(tb testing.TB) string {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: it makes network namespaces")
	}
	built.Do(func() {
		built.dir, built.err = os.MkdirTemp("", "sidewinder-cni-test")
		if built.err != nil {
			return
		}
		for name, pkg := range map[string]string{
			"sidewinder": ".",
			"host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local",
			"ptp":        "github.com/containernetworking/plugins/plugins/main/ptp",
		} {
			if out, err := exec.Command("go", "build", "-o", filepath.Join(built.dir, name), pkg).CombinedOutput(); err != nil {
				built.err = fmt.Errorf("building %s: %w\n%s", pkg, err, out)
				return
			}
		}
		self, err := os.Executable()
		if err == nil {
			err = os.Symlink(self, filepath.Join(built.dir, fakeIPAM))
		}
		built.err = err
	})
	require.NoError(tb, built.err)
	return built.dir
}

// newNS makes a namespace that ends with the test.
func newNS(tb testing.TB) ns.NetNS {
	tb.Helper()
	n, err := testutils.NewNS()
	if err != nil {
		tb.Skipf("needs network namespaces: %v", err)
	}
	tb.Cleanup(func() { closeNS(n) })
	return n
}

func closeNS(n ns.NetNS) {
	_ = n.Close()
	_ = testutils.UnmountNS(n)
}

// node is a network namespace with an agent's server and the plugin's folder.
type node struct {
	tb     testing.TB
	bin    string
	dir    string
	socket string
	ns     ns.NetNS
	cni    *libcni.CNIConfig

	mu    sync.Mutex
	cfg   api.NodeConfig
	ready error
	// await is the stub dataplane.
	await  func(ctx context.Context, id string, present bool) error
	server *cniserver.Server
	stop   func()
}

// nodeSystem looks for links in the node's namespace.
type nodeSystem struct{ n *node }

func (s nodeSystem) LinkExists(name string) (found bool, err error) {
	err = s.n.ns.Do(func(ns.NetNS) error {
		_, err := netlink.LinkByName(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil
		}
		found = err == nil
		return err
	})
	return found, err
}
func (nodeSystem) NetnsExists(path string) bool { _, err := os.Stat(path); return err == nil }
func (nodeSystem) BootID() string               { return "test" }

func newNode(tb testing.TB) *node {
	bin := binaries(tb)
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		tb.Skipf("needs IPv6 in the kernel: %v", err)
	}
	dir := tb.TempDir()
	n := &node{
		tb: tb, bin: bin, dir: dir, socket: filepath.Join(dir, "run", "cni.sock"), ns: newNS(tb),
		cni: libcni.NewCNIConfigWithCacheDir([]string{bin}, filepath.Join(dir, "cache"), nil),
		cfg: api.NodeConfig{MTU: testMTU},
	}
	n.setAwait(nil)
	n.start()
	tb.Cleanup(func() { n.halt() })
	return n
}

func (n *node) setAwait(f func(ctx context.Context, id string, present bool) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.await = f
}

func (n *node) start() {
	n.tb.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	s, err := cniserver.New(cniserver.Options{
		Socket: n.socket, StateDir: filepath.Join(n.dir, "state"), Log: log, System: nodeSystem{n},
		Lock:   fmt.Sprintf("sidewinder-cni-test-%d-%s", os.Getpid(), filepath.Base(n.ns.Path())),
		Config: func() (api.NodeConfig, error) { n.mu.Lock(); defer n.mu.Unlock(); return n.cfg, n.ready },
		Ready:  func() error { n.mu.Lock(); defer n.mu.Unlock(); return n.ready },
		Await: func(ctx context.Context, id string, present bool) error {
			n.mu.Lock()
			f := n.await
			n.mu.Unlock()
			if f == nil {
				return nil
			}
			return f(ctx, id, present)
		},
		Status: func() status.Status { return status.Status{Version: status.Version} },
		Resync: func(context.Context) error { return nil },
	})
	require.NoError(n.tb, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	n.server = s
	n.stop = func() { cancel(); <-done }
	require.Eventually(n.tb, func() bool { return n.client().Ready(context.Background()) == nil || n.ready != nil }, 5*time.Second, 2*time.Millisecond)
}

func (n *node) halt() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}

func (n *node) client() *client.Client { return client.New(n.socket) }

// hostLocal is an IPAM configuration of both families.
func (n *node) hostLocal() map[string]any {
	return map[string]any{
		"type": "host-local", "dataDir": filepath.Join(n.dir, "ipam"),
		"ranges": []any{
			[]any{map[string]any{"subnet": "10.42.0.0/24"}},
			[]any{map[string]any{"subnet": "fd42::/64"}},
		},
		"routes": []any{map[string]any{"dst": "0.0.0.0/0"}, map[string]any{"dst": "::/0"}, map[string]any{"dst": "192.0.2.0/24"}},
	}
}

// list makes a network of the one plugin.
func (n *node) list(version string, ipam any, extra map[string]any) *libcni.NetworkConfigList {
	n.tb.Helper()
	return n.network("net1", version, "sidewinder", ipam, extra)
}

func (n *node) network(name, version, kind string, ipam any, extra map[string]any) *libcni.NetworkConfigList {
	n.tb.Helper()
	p := map[string]any{"type": kind, "ipam": ipam, "socket": n.socket}
	for k, v := range extra {
		p[k] = v
	}
	raw, err := json.Marshal(map[string]any{"cniVersion": version, "name": name, "plugins": []any{p}})
	require.NoError(n.tb, err)
	l, err := libcni.NetworkConfFromBytes(raw)
	require.NoError(n.tb, err)
	return l
}

func runtimeConf(id string, netns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: id, NetNS: netns, IfName: "eth0", Args: [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", "pod-" + id}, {"K8S_POD_INFRA_CONTAINER_ID", id}, {"K8S_POD_UID", "u-" + id},
	}}
}

func (n *node) do(f func() error) error { return n.ns.Do(func(ns.NetNS) error { return f() }) }

func (n *node) add(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) (res types.Result, err error) {
	err = n.do(func() (err error) {
		res, err = n.cni.AddNetworkList(context.Background(), l, rt)
		return err
	})
	return res, err
}

func (n *node) mustAdd(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) *current.Result {
	n.tb.Helper()
	r, err := n.add(l, rt)
	require.NoError(n.tb, err)
	res, err := current.NewResultFromResult(r)
	require.NoError(n.tb, err)
	return res
}

func (n *node) del(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	return n.do(func() error { return n.cni.DelNetworkList(context.Background(), l, rt) })
}

func (n *node) check(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	return n.do(func() error { return n.cni.CheckNetworkList(context.Background(), l, rt) })
}

// command is the plugin run by hand, to be broken off.
func (n *node) command(cmd string, l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) *exec.Cmd {
	conf := map[string]any{}
	require.NoError(n.tb, json.Unmarshal(l.Plugins[0].Bytes, &conf))
	conf["name"], conf["cniVersion"] = l.Name, l.CNIVersion
	raw, err := json.Marshal(conf)
	require.NoError(n.tb, err)
	c := exec.Command(filepath.Join(n.bin, "sidewinder"))
	c.Env = append(os.Environ(), "CNI_COMMAND="+cmd, "CNI_CONTAINERID="+rt.ContainerID, "CNI_NETNS="+rt.NetNS, "CNI_IFNAME="+rt.IfName, "CNI_PATH="+n.bin)
	c.Stdin = strings.NewReader(string(raw))
	return c
}

// links are the node's own veth ends, by name.
func (n *node) links() map[string]netlink.Link {
	n.tb.Helper()
	out := map[string]netlink.Link{}
	require.NoError(n.tb, n.do(func() error {
		ls, err := netlink.LinkList()
		for _, l := range ls {
			if l.Type() == "veth" {
				out[l.Attrs().Name] = l
			}
		}
		return err
	}))
	return out
}

// addresses are what an IPAM store (host-local's or the fake's) has given out.
func (n *node) addresses() []string {
	n.tb.Helper()
	var out []string
	for _, dir := range []string{"ipam/net1", "ipam/net2", "fake"} {
		es, err := os.ReadDir(filepath.Join(n.dir, dir))
		if !errors.Is(err, os.ErrNotExist) {
			require.NoError(n.tb, err)
		}
		for _, e := range es {
			if e.Name() != "lock" && !strings.HasPrefix(e.Name(), "last_reserved_ip") {
				out = append(out, e.Name())
			}
		}
	}
	return out
}

// requireClean: nothing is left of any pod.
func (n *node) requireClean(pods ...ns.NetNS) {
	n.tb.Helper()
	require.Empty(n.tb, n.links(), "links on the node")
	require.Empty(n.tb, n.addresses(), "addresses in IPAM")
	if n.stop != nil {
		require.Empty(n.tb, n.server.Endpoints(), "records of the agent")
	}
	files, err := filepath.Glob(filepath.Join(n.dir, "state", "endpoints", "*.json"))
	require.NoError(n.tb, err)
	require.Empty(n.tb, files, "pod records on disk")
	for _, p := range pods {
		require.NoError(n.tb, p.Do(func(ns.NetNS) error {
			_, err := netlink.LinkByName("eth0")
			require.ErrorAs(n.tb, err, &netlink.LinkNotFoundError{}, "eth0 in the pod")
			return nil
		}))
	}
}

// cniErr is the CNI error in err.
func cniErr(t *testing.T, err error) *types.Error {
	t.Helper()
	var e *types.Error
	require.ErrorAs(t, err, &e)
	return e
}

func hostName(rt *libcni.RuntimeConf) string { return plugin.HostInterface(rt.ContainerID, rt.IfName) }

// mustJSON sets one key of a JSON object.
func mustJSON(t *testing.T, raw []byte, key string, value any) []byte {
	t.Helper()
	doc := map[string]any{}
	require.NoError(t, json.Unmarshal(raw, &doc))
	doc[key] = value
	out, err := json.Marshal(doc)
	require.NoError(t, err)
	return out
}
