package preflight

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// inNamespace runs the rest of the test in a network namespace of its own.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	// Never unlocked: the thread ends with the test, and the namespace with it.
	runtime.LockOSThread()
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNET))
}

func TestTryLeavesNothing(t *testing.T) {
	f := try(t.Context())
	after, err := netlink.LinkList()
	require.NoError(t, err)
	for _, l := range after {
		require.NotContains(t, []string{tryLink, tryPeer, "tryvrf"}, l.Attrs().Name)
	}
	if f.NotTried != nil {
		require.NotZero(t, os.Geteuid(), "%v", f.NotTried)
		t.Skipf("needs root: %v", f.NotTried)
	}
	for name, err := range f.Errors {
		t.Logf("this kernel lacks %s: %v", name, err)
		require.Contains(t, lacks(), name)
	}
}

func TestTryEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if f := try(ctx); f.NotTried != nil {
		require.True(t, errors.Is(f.NotTried, context.Canceled) || errors.Is(f.NotTried, unix.EPERM), "%v", f.NotTried)
	}
}

// TestRefusalsAreSeen: what a kernel does not know must not pass.
func TestRefusalsAreSeen(t *testing.T) {
	inNamespace(t)
	index, err := vethPair()
	require.NoError(t, err)
	require.Error(t, tryRoute("2001:db8:f::", encapSeg6Local, join32(localAction, 200), localAction, index), "an action that there is not")
	f := Features{Errors: map[Feature]error{FeatureDX6: seg6Tries()[FeatureDX6](index)}}
	if f.Errors[FeatureDX6] != nil {
		t.Skipf("the kernel has no seg6local: %v", f.Errors[FeatureDX6])
	}
	// The kernel takes an attribute that it does not know, and leaves it out.
	encap := append(join32(localAction, actionEnd), nl.NewRtAttr(4000, nl.Uint32Attr(1)).Serialize()...)
	require.ErrorIs(t, tryRoute("2001:db8:e::", encapSeg6Local, encap, 4000, index), errIgnored)
	require.Error(t, tryAFXDP(1<<20), "no such link")
	require.Error(t, tryXDP(1<<20), "no such link")
}

// inside makes this test binary act in a PID namespace of its own.
const inside = "PREFLIGHT_TEST_INSIDE"

// TestTryGuard: where the kernel takes the guard, the check says so, and lets go
// of it; in a PID namespace of its own it says what that costs.
func TestTryGuard(t *testing.T) {
	if err := tryGuard(); err != nil {
		t.Skip(err)
	}
	r := run(t.Context(), ThisMachine(), DefaultOptions(), false, func(c check) bool { return c.name == "guard" })
	require.Len(t, r.Results, 1)
	own, err := os.Readlink("/proc/self/ns/pid")
	require.NoError(t, err)
	if own != initialPIDs {
		require.Equal(t, Warning, r.Results[0].Verdict, "%s", r.Results[0])
		require.Contains(t, r.Results[0].Fix, "hostPID")
	} else if (Machine{Root: "/"}).exists("sys/kernel/btf/vmlinux") {
		require.Equal(t, OK, r.Results[0].Verdict, "%s", r.Results[0])
	}
	all, err := filepath.Glob("/proc/self/fd/*")
	require.NoError(t, err)
	for _, fd := range all {
		to, _ := os.Readlink(fd)
		require.NotContains(t, to, "bpf_link", "a guard that is left")
	}
	if os.Getenv(inside) != "" {
		require.NotEqual(t, initialPIDs, own)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a PID namespace")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestTryGuard$", "-test.v")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestTryGuard")
}

// TestNativeLimit: veth takes the shim at nativeLimit in native mode, and not
// much above it.
func TestNativeLimit(t *testing.T) {
	inNamespace(t)
	if err := xdp.Supported(); err != nil {
		t.Skip(err)
	}
	index, err := vethPair()
	require.NoError(t, err)
	for mtu, want := range map[int]bool{nativeLimit: true, nativeLimit + 64: false} {
		for _, name := range []string{tryLink, tryPeer} {
			l, err := netlink.LinkByName(name)
			require.NoError(t, err)
			require.NoError(t, netlink.LinkSetMTU(l, mtu))
		}
		err := tryXDP(index)
		require.Equal(t, want, err == nil, "MTU %d: %v", mtu, err)
	}
}

// TestLinks reads back what was made.
func TestLinks(t *testing.T) {
	inNamespace(t)
	index, err := vethPair()
	require.NoError(t, err)
	bridge := &netlink.Bridge{LinkAttrs: attrs("br0")}
	if err := netlink.LinkAdd(bridge); err == nil {
		peer, err := netlink.LinkByName(tryPeer)
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetMaster(peer, bridge))
	}
	l, err := netlink.LinkByIndex(index)
	require.NoError(t, err)
	a, err := netlink.ParseAddr("2001:db8::1/64")
	require.NoError(t, err)
	a.Flags = unix.IFA_F_NODAD
	require.NoError(t, netlink.AddrAdd(l, a))
	require.NoError(t, netlink.RouteAdd(&netlink.Route{LinkIndex: index, Family: netlink.FAMILY_V6, Gw: addr("2001:db8::2").AsSlice()}))

	names, err := defaults()
	require.NoError(t, err)
	require.Equal(t, []string{tryLink}, names)
	all, err := links()
	require.NoError(t, err)
	got, found := linkNamed(all, tryLink)
	require.True(t, found)
	require.Equal(t, "veth", got.Kind)
	require.Equal(t, "veth", got.Driver)
	require.True(t, got.Up)
	require.Equal(t, 1500, got.MTU)
	require.Empty(t, got.PCI)
	require.Nil(t, got.XDP)
	require.Equal(t, "2001:db8::1", got.Addresses[0].String())
	if peer, _ := linkNamed(all, tryPeer); peer.Master != "" {
		require.Equal(t, [2]string{"br0", "bridge"}, [2]string{peer.Master, peer.MasterKind})
	}
	_, found = linkNamed(all, "lo")
	require.False(t, found)

	shim, err := xdp.Attach(index)
	if err != nil {
		t.Skip(err)
	}
	defer shim.Close()
	all, err = links()
	require.NoError(t, err)
	got, _ = linkNamed(all, tryLink)
	require.NotNil(t, got.XDP)
	require.True(t, got.XDP.isOurs(), "%+v", got.XDP)
	require.Equal(t, "native", got.XDP.Mode)
}

// startVPP starts VPP in the network namespace of the calling thread, and
// returns a function that runs a command in it.
func startVPP(t *testing.T, buffers int) func(string) string {
	t.Helper()
	v, err := find.Locate("")
	if err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("/tmp", "preflight-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	conf := startup.Config{RunDir: dir, MainHeap: "128M", Buffers: buffers, Plugins: startup.InstalledPlugins(v.Path, startup.DefaultPlugins())}
	text, err := conf.Text()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(conf.ConfFile(), []byte(text), 0o600))
	cmd := exec.Command(v.Path, "-c", conf.ConfFile())
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for _, f := range conf.SharedMemory() {
			_ = os.Remove(f)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var c *binapi.Conn
	for c == nil {
		c, err = binapi.Dial(ctx, binapi.Options{Socket: conf.APISocket(), Require: []binapi.Group{binapi.GroupAFXDP}})
		if err != nil {
			require.NoError(t, ctx.Err(), "%v", err)
			time.Sleep(50 * time.Millisecond)
		}
	}
	t.Cleanup(func() { c.Close() })
	return func(command string) string {
		var out string
		require.NoError(t, c.Do(t.Context(), binapi.CLI(command, &out)), command)
		return out
	}
}

// TestWhatVPPReallyHas holds the figures that checks compute against a real VPP:
// how many buffers fit, and the largest packet that AF_XDP delivers.
func TestWhatVPPReallyHas(t *testing.T) {
	inNamespace(t)
	index, err := vethPair()
	require.NoError(t, err)
	if err := tryAFXDP(index); err != nil {
		t.Skip(err)
	}
	for _, name := range []string{tryLink, tryPeer} {
		l, err := netlink.LinkByName(name)
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetMTU(l, 3000))
		// No packets but those of this test.
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0o644)
	}
	o := DefaultOptions()
	o.Buffers = 8192
	vpp := startVPP(t, o.Buffers)

	fields := strings.Fields(strings.TrimSpace(vpp("show buffers")))
	// Pool name, index, NUMA node, size, data size, total, ...
	at := -1
	for i, f := range fields {
		if strings.HasPrefix(f, "default-numa-") {
			at = i
			break
		}
	}
	require.GreaterOrEqual(t, at, 0, "%v", fields)
	require.Equal(t, strconv.Itoa(o.BufferData), fields[at+4])
	total, err := strconv.Atoi(fields[at+5])
	require.NoError(t, err)
	require.InEpsilon(t, total, o.poolBuffers(smallPage), 0.005, "`show buffers` says %d", total)

	vpp("create interface af_xdp host-if " + tryLink)
	vpp("set interface state " + tryLink + "/0 up")
	received := func() int {
		m := regexp.MustCompile(`rx packets +(\d+)`).FindStringSubmatch(vpp("show interface " + tryLink + "/0"))
		if m == nil {
			return 0
		}
		n, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		return n
	}
	peer, err := netlink.LinkByName(tryPeer)
	require.NoError(t, err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	send := func(packet int) {
		frame := make([]byte, ethernetHeader+packet)
		for i := range 6 {
			frame[i] = 0xff
		}
		frame[12], frame[13] = 0x88, 0xb5 // an EtherType for experiments
		require.NoError(t, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: peer.Attrs().Index}))
	}
	arrives := func(want int) bool {
		for range 40 {
			if received() == want {
				return true
			}
			time.Sleep(25 * time.Millisecond)
		}
		return false
	}
	base := received()
	for range 3 {
		send(o.frameLimit())
	}
	require.True(t, arrives(base+3), "packets of %d bytes: %s", o.frameLimit(), vpp("show interface"))
	for range 3 {
		send(o.frameLimit() + 1)
	}
	send(64)
	require.True(t, arrives(base+4), "of packets of %d bytes none arrives: %s", o.frameLimit()+1, vpp("show interface"))
}
