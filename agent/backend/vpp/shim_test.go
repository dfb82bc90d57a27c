package vpp

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// shimFile writes the shim's object to where a VPP can read it.
func shimFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shim.o")
	require.NoError(t, xdp.WriteObject(path))
	return path
}

// withShim uses af_xdp with the shim on uplinks and pods.
func withShim(t testing.TB) Options {
	return Options{UplinkDriver: DriverAFXDP, PodDriver: DriverAFXDP, Shim: shimFile(t)}
}

// ownPod is the pod's interface that most tests use.
const ownPod = "sw00000000001"

func podInterface() dataplane.Interface {
	return dataplane.Interface{Role: dataplane.RolePod, MTU: podMTU, MAC: gatewayMAC}
}

func program(t testing.TB, link string) uint32 {
	t.Helper()
	l, err := findLink(link)
	require.NoError(t, err)
	return l.program
}

// putForeign puts a program of somebody else's on a link.
func putForeign(t testing.TB, link string) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "somebody_else", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // XDP_PASS
	})
	require.NoError(t, err)
	defer p.Close()
	l, err := netlink.LinkByName(link)
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetXdpFd(l, p.FD()))
}

func takeOffProgram(t testing.TB, link string) {
	t.Helper()
	l, err := netlink.LinkByName(link)
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetXdpFd(l, -1))
}

// A link whose shim somebody took off gets no packets to VPP: it is made anew.
func TestShimThatWasTakenOff(t *testing.T) {
	needVPP(t)
	inNetns(t)
	addVeth(t, "uplink0", "fabric0")
	addVeth(t, ownPod, "pod0")
	b := newBackend(t, startVPP(t), withShim(t))
	want := dataplane.New()
	want.Interfaces["uplink0"] = dataplane.Interface{Role: dataplane.RoleUplink}
	want.Interfaces[ownPod] = podInterface()
	apply(t, b, want)
	for _, link := range []string{"uplink0", ownPod} {
		l, err := findLink(link)
		require.NoError(t, err)
		shim, err := xdp.Find(l.index)
		require.NoError(t, err, "VPP loaded the shim")
		mode, err := shim.Mode()
		require.NoError(t, err)
		require.Equal(t, xdp.ModeKernel, mode)
		require.NoError(t, shim.Close())

		takeOffProgram(t, link)
		have, err := b.Dump(context.Background())
		require.NoError(t, err)
		require.Equal(t, uint16(needsRepair), have.Interfaces[dataplane.InterfaceKey(link)].MTU)
		apply(t, b, want)
		require.NotContains(t, []uint32{0, l.program}, program(t, link), "a new instance")
	}
	apply(t, b, dataplane.New())
	require.Zero(t, program(t, "uplink0"), "VPP takes its program off the link with its interface")
}

// VPP would take off whichever program is there, without a word.
func TestForeignProgramIsRespected(t *testing.T) {
	needVPP(t)
	inNetns(t)
	addVeth(t, "uplink0", "fabric0")
	b := newBackend(t, startVPP(t), withShim(t))
	want := dataplane.New()
	want.Interfaces["uplink0"] = dataplane.Interface{Role: dataplane.RoleUplink}
	refused := func(s dataplane.State) {
		t.Helper()
		ctx := context.Background()
		have, err := b.Dump(ctx)
		require.NoError(t, err)
		failed, rest := dataplane.Failures(b.Apply(ctx, dataplane.Diff(s, have)))
		require.NoError(t, rest)
		err = failed[dataplane.InterfaceKey("uplink0")]
		require.ErrorIs(t, err, xdp.ErrForeignProgram)
		require.ErrorIs(t, err, dataplane.ErrUnsupported)
		for _, part := range []string{"uplink0", "somebody_else", "xdp off"} {
			require.ErrorContains(t, err, part)
		}
	}
	putForeign(t, "uplink0")
	foreign := program(t, "uplink0")
	refused(want)
	require.Equal(t, foreign, program(t, "uplink0"))

	// One that replaced the shim afterwards stays as well.
	takeOffProgram(t, "uplink0")
	apply(t, b, want)
	putForeign(t, "uplink0")
	foreign = program(t, "uplink0")
	refused(want)
	refused(dataplane.New())
	require.Equal(t, foreign, program(t, "uplink0"))

	takeOffProgram(t, "uplink0")
	apply(t, b, want)
	apply(t, b, dataplane.New())
}

// What a VPP that was killed left on the links is in nobody's way, with the shim
// and with the program that VPP has where it is given none.
func TestProgramsThatAKilledVPPLeft(t *testing.T) {
	for name, first := range map[string]Options{
		"shim":    withShim(t),
		"default": {UplinkDriver: DriverAFPacket, PodDriver: DriverAFXDP},
	} {
		t.Run(name, func(t *testing.T) {
			needVPP(t)
			inNetns(t)
			addVeth(t, ownPod, "pod0")
			m := startVPP(t)
			want := dataplane.New()
			want.Interfaces[ownPod] = podInterface()
			b := newBackend(t, m, first)
			apply(t, b, want)
			left := program(t, ownPod)
			require.NotZero(t, left)
			m.kill(t)
			m.waitReady(t)
			require.Equal(t, left, program(t, ownPod), "programs outlive VPP")
			apply(t, newBackend(t, m, withShim(t)), want)
			l, err := findLink(ownPod)
			require.NoError(t, err)
			require.NotEqual(t, left, l.program)
			shim, err := xdp.Find(l.index)
			require.NoError(t, err)
			require.NoError(t, shim.Close())
		})
	}
}

// The object is put back where it went away, as with VPP's run directory. One
// that cannot be written, or that VPP cannot load, is an error with words, and
// leaves nothing in VPP.
func TestShimThatCannotBeLoaded(t *testing.T) {
	needVPP(t)
	inNetns(t)
	addVeth(t, ownPod, "pod0")
	m := startVPP(t)
	want := dataplane.New()
	want.Interfaces[ownPod] = podInterface()
	o := withShim(t)
	o.Shim = filepath.Join(t.TempDir(), "absent", "shim.o")
	b := newBackend(t, m, o)
	failed, rest := dataplane.Failures(b.Apply(context.Background(), dataplane.Diff(want, dataplane.New())))
	require.NoError(t, rest)
	require.ErrorContains(t, failed[dataplane.InterfaceKey(ownPod)], "no such file")

	var i binapi.Index
	call, err := binapi.AFXDPCreate(binapi.AFXDP{Link: ownPod, Program: os.Args[0]}, &i)
	require.NoError(t, err)
	require.ErrorContains(t, do(context.Background(), mustConnect(t, b), call), "cannot be read as an eBPF object")
	require.NotContains(t, m.cli(t, "show interface"), ownPod)

	o = withShim(t)
	require.NoError(t, os.Remove(o.Shim))
	apply(t, newBackend(t, m, o), want)
}

// How an interface receives is read back from VPP; the mode changes in place,
// the rest by making it anew.
func TestRxOfInterfaces(t *testing.T) {
	for _, driver := range []string{DriverAFXDP, DriverAFPacket} {
		t.Run(driver, func(t *testing.T) {
			needVPP(t)
			inNetns(t)
			addVeth(t, "uplink0", "fabric0")
			addVeth(t, ownPod, "pod0")
			m := startVPP(t)
			o := withShim(t)
			o.UplinkDriver, o.PodDriver = driver, driver
			b := newBackend(t, m, o)
			want := dataplane.New()
			pod := podInterface()
			set := func(r dataplane.Rx) held {
				pod.Rx = r
				want.Interfaces[ownPod] = pod
				apply(t, b, want)
				v, err := readView(context.Background(), mustConnect(t, b))
				require.NoError(t, err)
				return v.byName[ownPod]
			}
			want.Interfaces["uplink0"] = dataplane.Interface{Role: dataplane.RoleUplink, Rx: dataplane.Rx{Mode: dataplane.RxAdaptive}} // af_packet does not have it
			first := set(dataplane.Rx{})
			require.Equal(t, first.Index, set(dataplane.Rx{Mode: dataplane.RxPolling}).Index)
			require.Regexp(t, ownPod+`.*polling`, m.cli(t, "show interface rx-placement"))
			mode := map[string]string{DriverAFXDP: "adaptive", DriverAFPacket: "interrupt"}[driver]
			require.Regexp(t, `uplink0.*`+mode, m.cli(t, "show interface rx-placement"))
			require.Equal(t, first.Index, set(dataplane.Rx{Mode: dataplane.RxInterrupt}).Index)

			m.cli(t, "set interface rx-mode "+first.Name+" polling") // somebody's hand
			have, err := b.Dump(context.Background())
			require.NoError(t, err)
			require.Len(t, dataplane.Diff(want, have), 1)
			require.Equal(t, first.Index, set(dataplane.Rx{Mode: dataplane.RxInterrupt}).Index)

			set(dataplane.Rx{Queues: 1, Ring: 256, TxRing: 1024})
			now := set(dataplane.Rx{Mode: dataplane.RxAdaptive, Queues: 1, Ring: 256, TxRing: 1024})
			require.Equal(t, now.Index, set(dataplane.Rx{Queues: 1, Ring: 256, TxRing: 1024}).Index)
			// VPP's af_packet takes links down with its interfaces. The kernel
			// has them as well.
			up := func() {
				t.Helper()
				for _, name := range []string{"uplink0", ownPod} {
					l, err := findLink(name)
					require.NoError(t, err)
					require.True(t, l.up, "the kernel carries packets on %s", name)
				}
			}
			up()
			apply(t, b, dataplane.New())
			up()
		})
	}
}

func TestRxThatCannotBe(t *testing.T) {
	for _, r := range []dataplane.Rx{{Mode: "sometimes"}, {Ring: 255}, {Ring: 300}, {TxRing: 128}} {
		require.ErrorIs(t, checkRx(r), dataplane.ErrUnsupported, "%v", r)
	}
	require.NoError(t, checkRx(dataplane.Rx{Mode: dataplane.RxPolling, Ring: 256, TxRing: 32768}))
}

// Packets that the kernel would drop on their way into VPP's buffers are not led
// there.
func TestMTUThatDoesNotFitTheBuffers(t *testing.T) {
	needVPP(t)
	inNetns(t)
	addVeth(t, ownPod, "pod0")
	b := newBackend(t, startVPP(t), withShim(t))
	want := dataplane.New()
	v := podInterface()
	v.MTU = 2048 - xdpHeadroom - ethernetHeader - encapOverhead + 1
	want.Interfaces[ownPod] = v
	failed, rest := dataplane.Failures(b.Apply(context.Background(), dataplane.Diff(want, dataplane.New())))
	require.NoError(t, rest)
	err := failed[dataplane.InterfaceKey(ownPod)]
	require.ErrorIs(t, err, ErrFrameSize)
	require.ErrorContains(t, err, "podMTU to 1738 or less")
	v.MTU--
	want.Interfaces[ownPod] = v
	apply(t, b, want)
}

// A VPP that hangs is let go of at once when somebody says so.
func TestDropBreaksTheConnection(t *testing.T) {
	needVPP(t)
	inNetns(t)
	m := startVPP(t)
	b := newBackend(t, m, Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	apply(t, b, dataplane.New())
	changes := b.Watch(ctx)
	<-changes
	resume := m.freeze(t)
	done := make(chan error, 1)
	go func() {
		_, err := b.Dump(ctx)
		done <- err
	}()
	time.Sleep(100 * time.Millisecond)
	begin := time.Now()
	b.Drop()
	err := <-done
	require.True(t, errors.Is(err, dataplane.ErrDisconnected), "%v", err)
	require.Less(t, time.Since(begin), 50*time.Millisecond)
	requireSignal(t, changes)
	resume()
	requireSignal(t, changes)
	apply(t, b, dataplane.New())
}

// What changes about a link that VPP has is told at once, and followed.
func TestUplinkIsFollowed(t *testing.T) {
	needVPP(t)
	inNetns(t)
	addVeth(t, "uplink0", "fabric0")
	addVeth(t, "other0", "other1")
	b := newBackend(t, startVPP(t), withShim(t))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	want := dataplane.New()
	want.Interfaces["uplink0"] = dataplane.Interface{Role: dataplane.RoleUplink}
	apply(t, b, want)
	changes := b.Watch(ctx)
	requireSignal(t, changes) // it is connected
	link := func(name string) netlink.Link {
		l, err := netlink.LinkByName(name)
		require.NoError(t, err)
		return l
	}
	for name, change := range map[string]func() error{
		"MTU":     func() error { return netlink.LinkSetMTU(link("uplink0"), 1480) },
		"MAC":     func() error { return netlink.LinkSetHardwareAddr(link("uplink0"), []byte{2, 0, 0, 0, 0, 9}) },
		"program": func() error { return netlink.LinkSetXdpFd(link("uplink0"), -1) },
	} {
		require.NoError(t, change())
		requireSignal(t, changes)
		have, err := b.Dump(ctx)
		require.NoError(t, err)
		require.Len(t, dataplane.Diff(want, have), 1, name)
		apply(t, b, want)
		v, err := readView(ctx, mustConnect(t, b))
		require.NoError(t, err)
		now, err := findLink("uplink0")
		require.NoError(t, err)
		require.Equal(t, now.mac, dataplane.MAC(v.byName["uplink0"].MAC), name)
		require.Equal(t, now.mtu, int(v.byName["uplink0"].MTU), name)
		for len(changes) > 0 {
			<-changes
		}
	}
	require.NoError(t, netlink.LinkSetMTU(link("other0"), 1400))
	select {
	case <-changes:
		t.Fatal("other links are nobody's business here")
	case <-time.After(200 * time.Millisecond):
	}
}

// An uplink is received from by all its queues unless fewer are asked for; more
// than it has cannot be.
func TestQueuesOfAnUplink(t *testing.T) {
	needVPP(t)
	inNetns(t)
	v := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "uplink0", MTU: 1500, NumTxQueues: 2, NumRxQueues: 2},
		PeerName:  "fabric0", PeerNumTxQueues: 2, PeerNumRxQueues: 2,
	}
	require.NoError(t, netlink.LinkAdd(v))
	for _, name := range []string{"uplink0", "fabric0"} {
		l, err := netlink.LinkByName(name)
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetUp(l))
	}
	m := startVPP(t)
	b := newBackend(t, m, withShim(t))
	want := dataplane.New()
	for asked, has := range map[uint8]int{0: 2, 1: 1, 2: 2} {
		want.Interfaces["uplink0"] = dataplane.Interface{Role: dataplane.RoleUplink, Rx: dataplane.Rx{Queues: asked}}
		apply(t, b, want)
		var queues []binapi.RxQueue
		require.NoError(t, do(context.Background(), mustConnect(t, b), binapi.RxQueues(&queues)))
		require.Len(t, queues, has, "%d asked for", asked)
	}
	want.Interfaces["uplink0"] = dataplane.Interface{Role: dataplane.RoleUplink, Rx: dataplane.Rx{Queues: 3}}
	have, err := b.Dump(context.Background())
	require.NoError(t, err)
	failed, rest := dataplane.Failures(b.Apply(context.Background(), dataplane.Diff(want, have)))
	require.NoError(t, rest)
	require.ErrorContains(t, failed[dataplane.InterfaceKey("uplink0")], "fewer queues than asked for")
}
