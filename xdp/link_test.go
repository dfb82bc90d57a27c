package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/xdp/xsktest"
)

// inNetns puts the test into a network namespace of its own.
func inNetns(t testing.TB) {
	t.Helper()
	needsBPF(t)
	runtime.LockOSThread()
	old, err := netns.Get()
	require.NoError(t, err)
	fresh, err := netns.New()
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, fresh.Close())
		require.NoError(t, netns.Set(old))
		require.NoError(t, old.Close())
		runtime.UnlockOSThread()
	})
}

// newVeth makes a pair of links, name and name+"p", that are up.
func newVeth(t testing.TB, name string) (link, peer netlink.Link) {
	t.Helper()
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}))
	var ends [2]netlink.Link
	for i, n := range []string{name, name + "p"} {
		var err error
		ends[i], err = netlink.LinkByName(n)
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetUp(ends[i]))
	}
	return ends[0], ends[1]
}

// wire sends frames into a link from its peer, and sees what its kernel gets.
type wire struct {
	t          testing.TB
	send, seen int
	to         unix.SockaddrLinklayer
	number     uint32
}

func newWire(t testing.TB, link, peer netlink.Link) *wire {
	t.Helper()
	w := &wire{t: t, to: unix.SockaddrLinklayer{Ifindex: peer.Attrs().Index, Halen: 6}}
	var err error
	w.send, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(w.send) })
	const etherIPv6 = 0xdd86 // in network order
	w.seen, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, etherIPv6)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(w.seen) })
	require.NoError(t, unix.SetsockoptInt(w.seen, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<24))
	require.NoError(t, unix.Bind(w.seen, &unix.SockaddrLinklayer{Protocol: etherIPv6, Ifindex: link.Attrs().Index}))
	return w
}

// overlay sends one numbered frame for the SID of End.DT4.
func (w *wire) overlay() {
	w.t.Helper()
	w.number++
	data := binary.BigEndian.AppendUint32(ports(1000, 2000), 12<<16)
	data = append(data, "mark"...)
	frame := frame6(to4(between(peer4, pod4, 17, binary.BigEndian.AppendUint32(data, w.number))))
	if err := unix.Sendto(w.send, frame, 0, &w.to); err != nil {
		w.t.Errorf("send: %v", err)
	}
}

// numberOf is the number of one of overlay's frames.
func numberOf(frame []byte) (uint32, bool) {
	n := len(frame) - 8
	if n < 0 || string(frame[n:n+4]) != "mark" {
		return 0, false
	}
	return binary.BigEndian.Uint32(frame[n+4:]), true
}

// kernel takes the numbers of the frames that the kernel got since the last
// call.
func (w *wire) kernel() (numbers []uint32) {
	b := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(w.seen, b, 0)
		if err == unix.EAGAIN {
			return numbers
		}
		require.NoError(w.t, err)
		if number, ok := numberOf(b[:n]); ok {
			numbers = append(numbers, number)
		}
	}
}

func socketGot(t testing.TB, s *xsktest.Socket, within time.Duration) (numbers []uint32) {
	for {
		frame, err := s.Receive(within)
		if errors.Is(err, unix.ETIMEDOUT) {
			return numbers
		}
		require.NoError(t, err)
		if number, ok := numberOf(frame); ok {
			numbers = append(numbers, number)
		}
	}
}

func newTestTables(t testing.TB) *Tables {
	t.Helper()
	tables, err := NewTables(TablesOptions{MaxPrefixes: 1000, MaxFlows: 1000})
	require.NoError(t, err)
	t.Cleanup(func() { tables.Close() })
	require.NoError(t, tables.SetUplink(testUplink()))
	require.NoError(t, tables.SetPods(testPods()))
	return tables
}

func attach(t testing.TB, link netlink.Link) *Shim {
	t.Helper()
	s, err := Attach(link.Attrs().Index)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// The whole path on a link: to the socket while the mode is VPP and the socket
// lives, to the kernel else.
func TestLink(t *testing.T) {
	inNetns(t)
	link, peer := newVeth(t, "up")
	s := attach(t, link)
	mode, err := s.Mode()
	require.NoError(t, err)
	require.Equal(t, ModeKernel, mode, "a fresh shim")
	w := newWire(t, link, peer)
	require.NoError(t, s.Bind(RoleUplink, newTestTables(t)))

	socket, err := xsktest.Open(link.Attrs().Index, 0)
	require.NoError(t, err)
	require.NoError(t, s.RegisterSocket(0, socket.FD()))
	const frames = 100
	burst := func() {
		for range frames {
			w.overlay()
		}
		time.Sleep(50 * time.Millisecond)
	}
	counted := func(name string) uint64 {
		c, err := s.Counters()
		require.NoError(t, err)
		return c[name]
	}

	burst()
	require.Len(t, w.kernel(), frames, "mode kernel")
	require.NoError(t, s.SetMode(ModeVPP))
	burst()
	require.Len(t, socketGot(t, socket, time.Second/10), frames)
	require.Empty(t, w.kernel())
	require.EqualValues(t, frames, counted("vpp"))

	require.NoError(t, s.SetMode(ModeHeld))
	burst()
	require.Len(t, w.kernel(), frames, "mode held")
	require.NoError(t, s.SetMode(ModeVPP))
	require.NoError(t, socket.Close())
	burst()
	require.Len(t, w.kernel(), frames, "the socket is closed: the program falls through")
	require.EqualValues(t, frames, counted("no-socket"))

	socket, err = xsktest.Open(link.Attrs().Index, 0)
	require.NoError(t, err)
	defer socket.Close()
	require.NoError(t, s.RegisterSocket(0, socket.FD()))
	burst()
	require.Len(t, socketGot(t, socket, time.Second/10), frames, "a new socket")

	require.NoError(t, s.Detach())
	burst()
	require.Len(t, w.kernel(), frames, "detached")
	require.NoError(t, s.Detach(), "once more")
}

// No frame is lost, doubled or changed while the mode goes to and fro.
func TestModeSwitchLosesNothing(t *testing.T) {
	inNetns(t)
	link, peer := newVeth(t, "up")
	s := attach(t, link)
	w := newWire(t, link, peer)
	require.NoError(t, s.Bind(RoleUplink, newTestTables(t)))
	socket, err := xsktest.Open(link.Attrs().Index, 0)
	require.NoError(t, err)
	defer socket.Close()
	require.NoError(t, s.RegisterSocket(0, socket.FD()))

	const frames = 5000
	got := map[uint32]string{}
	note := func(by string, numbers []uint32) {
		for _, n := range numbers {
			require.Empty(t, got[n], "frame %d arrived twice", n)
			got[n] = by
		}
	}
	for i := range frames {
		if i%50 == 0 {
			require.NoError(t, s.SetMode([]Mode{ModeVPP, ModeKernel}[i/50%2]))
		}
		w.overlay()
		note("socket", socketGot(t, socket, 0))
		if i%100 == 0 {
			note("kernel", w.kernel())
		}
	}
	note("socket", socketGot(t, socket, time.Second/5))
	note("kernel", w.kernel())
	require.Len(t, got, frames)
	by := map[string]int{}
	for _, b := range got {
		by[b]++
	}
	require.Greater(t, by["socket"], frames/4)
	require.Greater(t, by["kernel"], frames/4)
}

// VPP's start takes the program off the link and puts its own there: what the
// kernel carries meanwhile goes on.
func TestReplaceUnderTraffic(t *testing.T) {
	inNetns(t)
	link, peer := newVeth(t, "up")
	s := attach(t, link)
	w := newWire(t, link, peer)
	const replacements = 20
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // about 1,000 frames a second
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				w.overlay()
			}
		}
	}()
	var gone time.Duration
	for range replacements {
		time.Sleep(50 * time.Millisecond)
		began := time.Now()
		require.NoError(t, s.Detach())
		s = attach(t, link)
		gone += time.Since(began)
	}
	close(stop)
	<-stopped
	time.Sleep(50 * time.Millisecond)
	got := w.kernel()
	t.Logf("%d replacements, %s each: %d of %d frames lost", replacements, gone/replacements, int(w.number)-len(got), w.number)
	require.GreaterOrEqual(t, len(got), int(w.number)-replacements)
}

// Whatever another process needs is found from the link.
func TestSecondProcess(t *testing.T) {
	if os.Getenv("XDP_SECOND_PROCESS") != "" {
		secondProcess(t)
		return
	}
	inNetns(t)
	link, peer := newVeth(t, "up")
	s := attach(t, link)
	tables := newTestTables(t)
	require.NoError(t, s.Bind(RoleUplink, tables))
	require.NoError(t, s.SetMode(ModeVPP))
	newWire(t, link, peer).overlay()
	require.NoError(t, tables.flows.Put(flowKey{Addr: addr(pod4).As16(), Proto: 17, Port: [2]byte{1, 2}}, flow{Expires: 1 << 62}))
	// Nothing of this process is needed any more.
	require.NoError(t, s.Close())
	require.NoError(t, tables.Close())

	cmd := exec.Command(os.Args[0], "-test.run=^TestSecondProcess$", "-test.v")
	cmd.Env = append(os.Environ(), "XDP_SECOND_PROCESS=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "second process: up program")

	found, err := Find(link.Attrs().Index)
	require.NoError(t, err)
	defer found.Close()
	mode, err := found.Mode()
	require.NoError(t, err)
	require.Equal(t, ModeHeld, mode, "as the second process left it")
}

func secondProcess(t *testing.T) {
	shims, err := FindAll()
	require.NoError(t, err)
	require.Len(t, shims, 1)
	s := shims[0]
	mode, err := s.Mode()
	require.NoError(t, err)
	require.Equal(t, ModeVPP, mode)
	role, err := s.Role()
	require.NoError(t, err)
	require.Equal(t, RoleUplink, role)
	counters, err := s.Counters()
	require.NoError(t, err)
	require.EqualValues(t, 1, counters["no-socket"], counters)

	tables, err := NewTables(TablesOptions{MaxPrefixes: 10, MaxFlows: 10})
	require.NoError(t, err)
	adopted, err := tables.AdoptFlows(s)
	require.NoError(t, err)
	require.True(t, adopted)
	require.EqualValues(t, 1000, tables.flows.MaxEntries(), "its size stays")
	var f flow
	require.NoError(t, tables.flows.Lookup(flowKey{Addr: addr(pod4).As16(), Proto: 17, Port: [2]byte{1, 2}}, &f))
	require.NoError(t, s.Bind(RolePod, tables))
	role, err = s.Role()
	require.NoError(t, err)
	require.Equal(t, RolePod, role)
	require.NoError(t, s.SetMode(ModeHeld))
	fmt.Println("second process:", s.LinkName(), "program", s.ProgramID())
}

func TestFindTellsForeignPrograms(t *testing.T) {
	inNetns(t)
	link, _ := newVeth(t, "up")
	index := link.Attrs().Index
	_, err := Find(index)
	require.ErrorIs(t, err, ErrNoShim)
	require.ErrorContains(t, err, "up")
	_, err = Find(1 << 20)
	require.ErrorAs(t, err, &netlink.LinkNotFoundError{})

	for _, name := range []string{"theirs", shimProgSidewinderShim} {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.XDP, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, actionPass), asm.Return()}})
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetXdpFd(link, p.FD()))
		require.NoError(t, p.Close())
		_, err = Find(index)
		require.ErrorIs(t, err, ErrForeignProgram)
		require.ErrorContains(t, err, name)
		shims, err := FindAll()
		require.NoError(t, err)
		require.Empty(t, shims)
		_, err = Attach(index)
		require.ErrorIs(t, err, unix.EBUSY, "somebody else's is not replaced")
	}
	require.NoError(t, netlink.LinkSetXdpFd(link, -1))

	s := attach(t, link)
	found, err := Find(index)
	require.NoError(t, err)
	require.Equal(t, s.ProgramID(), found.ProgramID())
	require.Equal(t, index, found.LinkIndex())
	require.NoError(t, found.Close())

	// What VPP does at its start: away with the old, in with its own. What was
	// found is then about a program that is on no link.
	require.NoError(t, s.Detach())
	again := attach(t, link)
	require.NotEqual(t, s.ProgramID(), again.ProgramID())
	require.NoError(t, s.SetMode(ModeVPP))
	require.NoError(t, s.Detach(), "leaves the other one")
	found, err = Find(index)
	require.NoError(t, err)
	require.Equal(t, again.ProgramID(), found.ProgramID())
	mode, err := found.Mode()
	require.NoError(t, err)
	require.Equal(t, ModeKernel, mode)
	require.NoError(t, found.Close())
}

func TestAttachMode(t *testing.T) {
	inNetns(t)
	veth, _ := newVeth(t, "up")
	loopback, err := netlink.LinkByName("lo") // whose driver has no XDP
	require.NoError(t, err)
	for link, native := range map[netlink.Link]bool{veth: true, loopback: false} {
		require.Equal(t, native, attach(t, link).Native(), link.Attrs().Name)
		found, err := Find(link.Attrs().Index)
		require.NoError(t, err)
		require.Equal(t, native, found.Native(), link.Attrs().Name)
		require.NoError(t, found.Detach(), "by who found it")
		_, err = Find(link.Attrs().Index)
		require.ErrorIs(t, err, ErrNoShim)
		require.NoError(t, found.Close())
	}
}

func TestAdoptFlowsOfAnUnboundShim(t *testing.T) {
	inNetns(t)
	link, _ := newVeth(t, "up")
	adopted, err := newTestTables(t).AdoptFlows(attach(t, link))
	require.NoError(t, err)
	require.False(t, adopted)
}

func TestWriteObject(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shim.o")
	require.NoError(t, WriteObject(path))
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, Object(), raw)
	require.True(t, strings.HasPrefix(string(raw), "\x7fELF"))
	before, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, WriteObject(path))
	after, err := os.Stat(path)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "an equal file is left alone")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	require.NoError(t, WriteObject(path))
	raw, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, Object(), raw)
	require.Error(t, WriteObject(filepath.Join(t.TempDir(), "absent", "shim.o")))
}

// BenchmarkNode is what the agent and the watchdog do on a node with 110 pods.
func BenchmarkNode(b *testing.B) {
	inNetns(b)
	const links = 110
	ns, err := netns.Get()
	require.NoError(b, err)
	defer ns.Close()
	// A sub-benchmark has a goroutine, and so a thread, of its own.
	run := func(name string, f func(b *testing.B)) {
		b.Run(name, func(b *testing.B) {
			runtime.LockOSThread() // and never back: the thread ends with it
			require.NoError(b, netns.Set(ns))
			b.ResetTimer()
			f(b)
		})
	}
	tables := newTestTables(b)
	for i := range links {
		link, _ := newVeth(b, fmt.Sprintf("pod%d", i))
		attach(b, link)
	}
	run("find all", func(b *testing.B) {
		for range b.N {
			shims, err := FindAll()
			require.NoError(b, err)
			require.Len(b, shims, links)
			closeAll(b, shims)
		}
	})
	run("find all and set mode", func(b *testing.B) {
		for range b.N {
			shims, err := FindAll()
			require.NoError(b, err)
			for _, s := range shims {
				require.NoError(b, s.SetMode(ModeVPP))
			}
			closeAll(b, shims)
		}
	})
	shims, err := FindAll()
	require.NoError(b, err)
	defer closeAll(b, shims)
	run("set mode", func(b *testing.B) {
		for range b.N {
			for _, s := range shims {
				require.NoError(b, s.SetMode(ModeVPP))
			}
		}
	})
	bind := func(b *testing.B, t *Tables) {
		var wg sync.WaitGroup
		for _, s := range shims {
			wg.Go(func() {
				if err := s.Bind(RolePod, t); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	run("bind at the same time", func(b *testing.B) {
		other := newTestTables(b)
		for i := range b.N {
			bind(b, []*Tables{tables, other}[i%2])
		}
	})
	run("bind again", func(b *testing.B) {
		bind(b, tables)
		b.ResetTimer()
		for range b.N {
			bind(b, tables)
		}
	})
}

func closeAll(b *testing.B, shims []*Shim) {
	for _, s := range shims {
		require.NoError(b, s.Close())
	}
}
