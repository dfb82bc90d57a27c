package cniserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/cni/api"
	"github.com/sidewinder-net/sidewinder/cni/client"
)

// fakeSystem is a machine with the links and namespaces named.
type fakeSystem struct {
	mu     sync.Mutex
	links  map[string]bool
	netns  map[string]bool
	bootID string
}

func (f *fakeSystem) LinkExists(name string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.links[name], nil
}

func (f *fakeSystem) NetnsExists(path string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.netns[path]
}

func (f *fakeSystem) BootID() string { return f.bootID }

// set says what is there of pod n.
func (f *fakeSystem) set(n int, link, netns bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links[fmt.Sprintf("sw%d", n)], f.netns[fmt.Sprintf("/run/netns/p%d", n)] = link, netns
}

// rig is a server with a stub dataplane.
type rig struct {
	t     *testing.T
	dir   string
	sys   *fakeSystem
	opt   Options
	mu    sync.Mutex
	await func(ctx context.Context, id string, present bool) error

	server *Server
	client *client.Client
	stop   func()
}

// rigs numbers the rigs.
var rigs atomic.Int64

func newRig(t *testing.T) *rig {
	r := &rig{t: t, dir: t.TempDir(), sys: &fakeSystem{links: map[string]bool{}, netns: map[string]bool{}, bootID: "boot1"}}
	log := logrus.New()
	log.SetOutput(io.Discard)
	r.opt = Options{
		Socket: filepath.Join(r.dir, "run", "cni.sock"), StateDir: filepath.Join(r.dir, "state"), Log: log, System: r.sys,
		Config: func() (api.NodeConfig, error) { return api.NodeConfig{MTU: 1460}, nil },
		Ready:  func() error { return nil },
		Await: func(ctx context.Context, id string, present bool) error {
			r.mu.Lock()
			f := r.await
			r.mu.Unlock()
			if f == nil {
				return nil
			}
			return f(ctx, id, present)
		},
		Status: func() status.Status { return status.Status{Version: status.Version, Node: "n1"} },
		Resync: func(context.Context) error { return nil },
		// Tests share the network namespace with each other, and with the machine.
		Lock: fmt.Sprintf("sidewinder-cniserver-test-%d-%d", os.Getpid(), rigs.Add(1)),
	}
	t.Cleanup(r.halt)
	return r
}

func (r *rig) setAwait(f func(ctx context.Context, id string, present bool) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.await = f
}

func (r *rig) start() {
	r.t.Helper()
	s, err := New(r.opt)
	require.NoError(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r.server, r.client = s, client.New(r.opt.Socket)
	r.stop = func() { cancel(); require.NoError(r.t, <-done) }
	require.Eventually(r.t, func() bool {
		var e *client.UnreachableError
		return !errors.As(r.client.Ready(context.Background()), &e)
	}, 5*time.Second, time.Millisecond)
}

func (r *rig) halt() {
	if r.stop != nil {
		r.stop()
		r.client.Close()
		r.stop = nil
	}
}

// endpoint is a good one; n tells it from others.
func (r *rig) endpoint(n int) api.Endpoint {
	ep := api.Endpoint{
		ContainerID: fmt.Sprintf("c%d", n), IfName: "eth0", Netns: fmt.Sprintf("/run/netns/p%d", n),
		Namespace: "default", Name: fmt.Sprintf("pod%d", n), HostInterface: fmt.Sprintf("sw%d", n),
		HostMAC: api.GatewayMAC, PodMAC: "02:00:00:00:00:01", MTU: 1460, WholeChecksums: true, Network: "net1",
		IPs: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", n)), netip.MustParseAddr(fmt.Sprintf("fd00::%d", n))},
	}
	r.sys.mu.Lock()
	r.sys.links[ep.HostInterface] = true
	r.sys.mu.Unlock()
	return ep
}

func (r *rig) files(suffix string) []string {
	fs, err := filepath.Glob(filepath.Join(r.opt.StateDir, "endpoints", "*"+suffix))
	require.NoError(r.t, err)
	return fs
}

func bg() context.Context { return context.Background() }

func TestEndpointLifecycle(t *testing.T) {
	r := newRig(t)
	r.start()
	ep := r.endpoint(1)
	onDisk := -1
	r.setAwait(func(_ context.Context, id string, present bool) error {
		if id != "c1/eth0" {
			return fmt.Errorf("id %q", id)
		}
		if present {
			onDisk = len(r.files(suffixRecord))
		}
		return nil
	})
	require.NoError(t, r.client.AddEndpoint(bg(), ep))
	require.Equal(t, 1, onDisk, "the record is on disk before the dataplane is waited for")
	select {
	case <-r.server.Changed():
	default:
		t.Fatal("no change was told")
	}
	got, err := r.client.Endpoint(bg(), "c1", "eth0")
	require.NoError(t, err)
	require.Equal(t, ep, got)
	list, err := r.client.Endpoints(bg())
	require.NoError(t, err)
	require.Equal(t, []api.Endpoint{ep}, list)

	mac, _ := dataplane.ParseMAC(api.GatewayMAC)
	want := r.server.Endpoints()
	require.Len(t, want, 1)
	require.Equal(t, mac, want[0].HostMAC)
	require.Equal(t, uint16(1460), want[0].MTU)
	require.Equal(t, ep.IPs, want[0].IPs)
	require.True(t, want[0].WholeChecksums)

	require.NoError(t, r.client.AddEndpoint(bg(), ep), "a repeated POST")
	select {
	case <-r.server.Changed():
		t.Fatal("a repeated POST is no change")
	default:
	}
	require.NoError(t, r.client.DeleteEndpoint(bg(), "c1", "eth0"))
	require.NoError(t, r.client.DeleteEndpoint(bg(), "c1", "eth0"))
	_, err = r.client.Endpoint(bg(), "c1", "eth0")
	require.ErrorIs(t, err, client.ErrNotFound)
	require.Empty(t, r.server.Endpoints())
	require.Empty(t, r.files(suffixRecord))
}

func TestOtherRequests(t *testing.T) {
	r := newRig(t)
	var notReady, resync atomic.Pointer[string]
	failing := func(p *atomic.Pointer[string]) error {
		if s := p.Load(); s != nil {
			return errors.New(*s)
		}
		return nil
	}
	r.opt.Ready = func() error { return failing(&notReady) }
	r.opt.Resync = func(context.Context) error { return failing(&resync) }
	r.start()
	cfg, err := r.client.Config(bg())
	require.NoError(t, err)
	require.Equal(t, 1460, cfg.MTU)
	var st status.Status
	require.NoError(t, r.client.Status(bg(), &st))
	require.Equal(t, "n1", st.Node)
	require.NoError(t, r.client.Resync(bg()))
	away, none := "VPP is away", "no locator yet"
	resync.Store(&away)
	require.ErrorContains(t, r.client.Resync(bg()), "VPP is away")
	notReady.Store(&none)
	var e *api.Error
	require.ErrorAs(t, r.client.Ready(bg()), &e)
	require.True(t, e.TryAgain)
	require.Contains(t, e.Reason, "no locator yet")
	require.ErrorContains(t, r.client.AddEndpoint(bg(), r.endpoint(1)), "no locator yet")
	require.Empty(t, r.server.Endpoints())
}

func TestBadEndpointsAreRefused(t *testing.T) {
	r := newRig(t)
	r.start()
	addr := netip.MustParseAddr
	for field, spoil := range map[string]func(*api.Endpoint){
		"containerID":   func(e *api.Endpoint) { e.ContainerID = "../x" },
		"ifName":        func(e *api.Endpoint) { e.IfName = "a name too long for it" },
		"hostInterface": func(e *api.Endpoint) { e.HostInterface = "a/b" },
		"netns":         func(e *api.Endpoint) { e.Netns = "relative" },
		"name":          func(e *api.Endpoint) { e.Name = "a\nb" },
		"hostMAC":       func(e *api.Endpoint) { e.HostMAC = "no" },
		"podMAC":        func(e *api.Endpoint) { e.PodMAC = "01:00:5e:00:00:01" },
		"mtu":           func(e *api.Endpoint) { e.MTU = 1279 },
		"ips":           func(e *api.Endpoint) { e.IPs = nil },
		"ips[0]":        func(e *api.Endpoint) { e.IPs = []netip.Addr{addr("fe80::1")} },
		"ips[1]":        func(e *api.Endpoint) { e.IPs = []netip.Addr{addr("10.0.0.9"), addr("10.0.0.9")} },
		"ips[2]": func(e *api.Endpoint) {
			e.IPs = []netip.Addr{addr("10.0.0.8"), addr("fd00::8"), addr("::ffff:10.0.0.7")}
		},
	} {
		t.Run(field, func(t *testing.T) {
			ep := r.endpoint(1)
			spoil(&ep)
			var e *api.Error
			require.ErrorAs(t, r.client.AddEndpoint(bg(), ep), &e)
			require.Equal(t, field, e.Field)
			require.False(t, e.TryAgain)
			require.NotEmpty(t, e.Reason)
			require.Empty(t, r.server.Endpoints())
			require.Empty(t, r.files(suffixRecord))
			require.Empty(t, r.files(suffixTemp))
		})
	}
}

func TestConflicts(t *testing.T) {
	r := newRig(t)
	r.start()
	one, two := r.endpoint(1), r.endpoint(2)
	require.NoError(t, r.client.AddEndpoint(bg(), one))
	two.IPs[1] = one.IPs[1]
	var e *api.Error
	require.ErrorAs(t, r.client.AddEndpoint(bg(), two), &e)
	require.Equal(t, "ips[1]", e.Field)
	require.Contains(t, e.Reason, "default/pod1")
	two = r.endpoint(2)
	two.HostInterface = one.HostInterface
	require.ErrorAs(t, r.client.AddEndpoint(bg(), two), &e)
	require.Equal(t, "hostInterface", e.Field)
	require.Len(t, r.server.Endpoints(), 1)

	// The first pod's interface has vanished: it makes room.
	two = r.endpoint(2)
	two.IPs = one.IPs
	r.sys.mu.Lock()
	r.sys.links[one.HostInterface] = false
	r.sys.mu.Unlock()
	require.NoError(t, r.client.AddEndpoint(bg(), two))
	require.Len(t, r.server.Endpoints(), 1)
	require.Len(t, r.files(suffixRecord), 1)
}

func TestFailedWiringIsTakenBack(t *testing.T) {
	tests := map[string]struct {
		err      error
		tryAgain bool
	}{
		"failure":     {errors.New("boom"), true},
		"unsupported": {fmt.Errorf("boom: %w", dataplane.ErrUnsupported), false},
		"answer":      {&api.Error{Reason: "boom"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.start()
			released := make(chan int, 1)
			r.setAwait(func(_ context.Context, _ string, present bool) error {
				if present {
					return tt.err
				}
				released <- len(r.server.Endpoints())
				return nil
			})
			var e *api.Error
			require.ErrorAs(t, r.client.AddEndpoint(bg(), r.endpoint(1)), &e)
			require.Contains(t, e.Error(), "boom")
			require.Equal(t, tt.tryAgain, e.TryAgain)
			require.Equal(t, 0, <-released, "the dataplane was waited for, without the pod")
			require.Empty(t, r.files(suffixRecord))
			r.setAwait(nil)
			require.NoError(t, r.client.AddEndpoint(bg(), r.endpoint(1)))
		})
	}
}

func TestSlowDataplaneIsGivenUp(t *testing.T) {
	r := newRig(t)
	r.opt.AwaitTimeout = 30 * time.Millisecond
	r.start()
	r.setAwait(func(ctx context.Context, _ string, present bool) error {
		if !present {
			return nil
		}
		<-ctx.Done()
		return fmt.Errorf("interface sw1: not there: %w", ctx.Err())
	})
	var e *api.Error
	require.ErrorAs(t, r.client.AddEndpoint(bg(), r.endpoint(1)), &e)
	require.True(t, e.TryAgain)
	require.Contains(t, e.Reason, "not ready with it in time")
	require.Contains(t, e.Reason, "interface sw1")
	require.Empty(t, r.server.Endpoints())
}

func TestCallerThatGoesAwayIsForgotten(t *testing.T) {
	r := newRig(t)
	r.start()
	waiting := make(chan struct{})
	r.setAwait(func(ctx context.Context, _ string, present bool) error {
		if !present {
			return nil
		}
		close(waiting)
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(bg())
	go func() { <-waiting; cancel() }()
	require.Error(t, r.client.AddEndpoint(ctx, r.endpoint(1)))
	require.Eventually(t, func() bool { return len(r.server.Endpoints()) == 0 && len(r.files(suffixRecord)) == 0 }, 2*time.Second, time.Millisecond)
}

func TestDeleteGoesOnWaiting(t *testing.T) {
	r := newRig(t)
	r.start()
	require.NoError(t, r.client.AddEndpoint(bg(), r.endpoint(1)))
	r.setAwait(func(context.Context, string, bool) error { return errors.New("stuck") })
	require.ErrorContains(t, r.client.DeleteEndpoint(bg(), "c1", "eth0"), "stuck")
	require.Empty(t, r.server.Endpoints())
	require.ErrorContains(t, r.client.DeleteEndpoint(bg(), "c1", "eth0"), "stuck", "a repeated DELETE does not answer too early")
	r.setAwait(nil)
	require.NoError(t, r.client.DeleteEndpoint(bg(), "c1", "eth0"))
}

func TestRequestsForOneEndpointAreSerialised(t *testing.T) {
	r := newRig(t)
	r.start()
	var mu sync.Mutex
	inside := map[string]int{}
	r.setAwait(func(_ context.Context, id string, _ bool) error {
		mu.Lock()
		inside[id]++
		n := inside[id]
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		inside[id]--
		mu.Unlock()
		if n != 1 {
			return fmt.Errorf("%d requests for %s at once", n, id)
		}
		return nil
	})
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for i := 1; i <= 5; i++ {
		ep := r.endpoint(i)
		for range 4 {
			wg.Add(2)
			go func() { defer wg.Done(); errs <- r.client.AddEndpoint(bg(), ep) }()
			go func() { defer wg.Done(); errs <- r.client.DeleteEndpoint(bg(), ep.ContainerID, ep.IfName) }()
		}
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.Equal(t, len(r.server.Endpoints()), len(r.files(suffixRecord)), "memory and disk agree")
}

func TestPanicsAndBadRequests(t *testing.T) {
	r := newRig(t)
	r.opt.Config = func() (api.NodeConfig, error) { panic("oops") }
	r.start()
	_, err := r.client.Config(bg())
	var e *api.Error
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Reason, "oops")
	require.NoError(t, r.client.Ready(bg()), "the server goes on")

	raw := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", r.opt.Socket)
	}}}
	for _, tt := range []struct {
		method, path, body string
		code               int
	}{
		{"POST", api.PathEndpoints, `{"containerID": 5}`, http.StatusBadRequest},
		{"POST", api.PathEndpoints, `{`, http.StatusBadRequest},
		{"POST", api.PathEndpoints, `"` + strings.Repeat("x", maxBody) + `"`, http.StatusRequestEntityTooLarge},
		{"GET", "/v2/else", "", http.StatusNotFound},
		{"GET", api.PathEndpoints + "/nobody/eth0", "", http.StatusNotFound},
	} {
		req, err := http.NewRequest(tt.method, "http://agent"+tt.path, strings.NewReader(tt.body))
		require.NoError(t, err)
		resp, err := raw.Do(req)
		require.NoError(t, err)
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		require.Equal(t, tt.code, resp.StatusCode, tt.path)
		require.Contains(t, string(body), `"reason"`)
	}
}

func TestSocket(t *testing.T) {
	r := newRig(t)
	require.NoError(t, os.MkdirAll(filepath.Dir(r.opt.Socket), 0o755))
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.opt.Socket, Net: "unix"})
	require.NoError(t, err)
	dead.SetUnlinkOnClose(false)
	require.NoError(t, dead.Close())

	r.start() // In place of the dead one.
	fi, err := os.Stat(r.opt.Socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
	require.NoError(t, r.client.Ready(bg()))

	second := r.opt
	second.Lock += "-2" // In another network namespace.
	_, err = New(second)
	require.ErrorIs(t, err, ErrInUse, "one state folder, two agents")
	second.StateDir = filepath.Join(r.dir, "state2")
	_, err = New(second)
	require.ErrorIs(t, err, ErrInUse, "one socket, two agents")
	require.NoError(t, r.client.Ready(bg()), "the first one is not disturbed")

	r.halt()
	require.NoFileExists(t, r.opt.Socket)
	require.NoError(t, os.WriteFile(r.opt.Socket, nil, 0o600))
	_, err = New(r.opt)
	require.ErrorContains(t, err, "something else")
	require.FileExists(t, r.opt.Socket)

	r.opt.Socket = "/" + strings.Repeat("x", 108)
	_, err = New(r.opt)
	require.ErrorContains(t, err, "longer than")
}

func TestRestart(t *testing.T) {
	r := newRig(t)
	r.start()
	for i := 1; i <= 6; i++ {
		require.NoError(t, r.client.AddEndpoint(bg(), r.endpoint(i)))
	}
	r.halt()
	// 1 is untouched; 2's link and namespace are gone; 3's link is; 4's file is
	// damaged; 5 is from an unknown version; 6 was being replaced.
	r.sys.netns["/run/netns/p1"], r.sys.netns["/run/netns/p3"] = true, true
	r.sys.links["sw2"], r.sys.links["sw3"] = false, false
	st := &store{dir: filepath.Join(r.opt.StateDir, "endpoints")}
	require.NoError(t, os.WriteFile(st.path("c4/eth0"), []byte(`{"version": 1, "endp`), 0o600))
	raw, err := os.ReadFile(st.path("c5/eth0"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(st.path("c5/eth0"), []byte(strings.Replace(string(raw), `"version":1`, `"version":7`, 1)), 0o600))
	require.NoError(t, os.WriteFile(st.path("c6/eth0")+suffixTemp, []byte("half"), 0o600))

	r.start()
	var ids []string
	for _, ep := range r.server.Endpoints() {
		ids = append(ids, ep.ID)
	}
	require.Equal(t, []string{"c1/eth0", "c3/eth0", "c6/eth0"}, ids)
	require.Len(t, r.files(suffixBad), 2)
	require.Empty(t, r.files(suffixTemp))
	problems := r.server.Problems()
	require.Len(t, problems, 3)
	require.Contains(t, problems[0].String(), "sw3")
	require.Contains(t, problems[1].String(), "c4-eth0")
	require.Contains(t, problems[2].String(), "version: 7")
	require.NoError(t, r.client.DeleteEndpoint(bg(), "c3", "eth0"))
	require.Len(t, r.server.Problems(), 2)

	// A bad record is told of at each start, until someone removes it.
	r.halt()
	r.start()
	require.Len(t, r.server.Problems(), 2)
	require.NoError(t, os.Remove(r.files(suffixBad)[0]))
	require.Len(t, r.server.Problems(), 1, "what was put right is not told any more")

	// After a restart of the machine, links of before cannot be there.
	r.halt()
	r.sys.bootID = "boot2"
	r.sys.links = map[string]bool{}
	r.start()
	require.Empty(t, r.server.Endpoints(), "although a namespace of 1's path exists")
}

// An agent that ends while a pod is being wired answers, and leaves no record.
func TestEndWhileWiring(t *testing.T) {
	r := newRig(t)
	r.start()
	waiting := make(chan struct{})
	r.setAwait(func(ctx context.Context, _ string, present bool) error {
		if present {
			close(waiting)
		}
		<-ctx.Done()
		return ctx.Err()
	})
	answer := make(chan error, 1)
	go func() { answer <- r.client.AddEndpoint(bg(), r.endpoint(1)) }()
	<-waiting
	start := time.Now()
	r.halt()
	require.Less(t, time.Since(start), 2*time.Second)
	var e *api.Error
	require.ErrorAs(t, <-answer, &e)
	require.True(t, e.TryAgain)
	require.Empty(t, r.files(suffixRecord))
}

func TestNewWantsEverything(t *testing.T) {
	r := newRig(t)
	r.opt.Await = nil
	_, err := New(r.opt)
	require.ErrorContains(t, err, "Await")
}
