package uplink

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inNetns moves the test into a fresh network namespace.
func inNetns(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the program ip (iproute2)")
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	require.NoError(t, err)
	ns, err := netns.New()
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, netns.Set(home))
		ns.Close()
		home.Close()
		runtime.UnlockOSThread()
	})
	ip(t, "link set lo up")
}

// ip runs iproute2.
func ip(t *testing.T, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	require.NoError(t, err, "ip %s: %s", args, out)
	return string(out)
}

// newHost makes a link "eth0" as a host may have it, with its peer "far0".
func newHost(t *testing.T) {
	t.Helper()
	ip(t, "link add eth0 address 02:00:00:00:00:01 mtu 1480 type veth peer name far0 address 02:00:00:00:00:02 mtu 1480")
	// Addresses are usable at once.
	for _, l := range []string{"eth0", "far0"} {
		require.NoError(t, writeSysctl(l, sysctlDAD, "0"))
	}
	ip(t, "link set far0 up")
	ip(t, "link set eth0 txqueuelen 777 alias uplink")
	ip(t, "link property add dev eth0 altname enp3s0")
	for key, value := range map[string]string{"ipv6/conf/forwarding": "1", "ipv6/conf/accept_ra": "2", "ipv4/conf/rp_filter": "2", "ipv4/neigh/gc_stale_time": "99"} {
		require.NoError(t, writeSysctl("eth0", key, value))
	}
	ip(t, "link set eth0 up")
	for _, line := range strings.Split(`
addr add 10.9.0.1/24 dev eth0
addr add 10.9.0.7/24 dev eth0
addr add 10.9.1.7/32 dev eth0 valid_lft 3000 preferred_lft 2000
addr add 10.9.2.1/24 dev eth0 metric 50 noprefixroute
addr add 2001:db8::1/64 dev eth0
addr add 2001:db8::77/64 dev eth0 preferred_lft 0
addr add 2001:db8:1::1/64 dev eth0 valid_lft 3000 preferred_lft 2000
route add default via 10.9.0.2 metric 100 src 10.9.0.7
route add default via 10.9.0.3 metric 200 proto dhcp
route add 10.50.0.0/16 via 10.9.0.2 table 77 mtu 1400
route add 10.60.0.0/16 nexthop via 10.9.0.2 weight 3 nexthop via 10.9.0.3
route add 192.0.2.1 dev eth0 scope link
route add 10.61.0.0/16 via 192.0.2.1
-6 route add default via 2001:db8::2 metric 1024 pref high
-6 route add default via fe80::2 dev eth0 metric 2048 proto ra expires 1800
-6 route add 2001:db8:5::/48 nexthop via 2001:db8::2 nexthop via 2001:db8::3 weight 2
-6 route add fc00:9::/64 dev eth0 table 99
neigh add 2001:db8::9 lladdr 02:00:00:00:00:99 dev eth0
neigh add 10.9.0.9 lladdr 02:00:00:00:00:99 dev eth0
nexthop add id 8301 via 10.9.0.2 dev eth0
route add 10.70.0.0/16 nhid 8301
rule add iif eth0 lookup 99 pref 500`, "\n")[1:] {
		ip(t, line)
	}
	settle(t)
	require.NoError(t, writeSysctl("eth0", sysctlDAD, "1"))
}

// settle waits until no address of eth0 is tentative.
func settle(t *testing.T) {
	t.Helper()
	// In this goroutine: others are in another namespace.
	for range 500 {
		if !strings.Contains(ip(t, "addr show"), "tentative") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("addresses stay tentative")
}

var changing = regexp.MustCompile(`(valid_lft|preferred_lft|expires) \d+sec|qdisc \S+|@\w+`)

// show is all that the host has on eth0, as iproute2 tells it. Numbers of links
// are cut off.
func show(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	link := ip(t, "-d link show dev eth0")
	for _, word := range []string{"mtu \\d+", "<[^>]*>", "qlen \\d+", "link/ether \\S+", "alias \\S+", "altname \\S+", "promiscuity \\d+", "allmulti \\d+"} {
		fmt.Fprintln(&b, regexp.MustCompile(word).FindString(link))
	}
	for _, what := range []string{"addr show dev eth0", "route show table all", "-6 route show table all", "rule", "-6 rule", "neigh show dev eth0 nud permanent", "nexthop show"} {
		for _, line := range strings.Split(ip(t, "-o "+what), "\n") {
			if strings.Contains(line, "dev far0") {
				continue
			}
			line = changing.ReplaceAllString(line, "$1")
			fmt.Fprintln(&b, regexp.MustCompile(`^\d+: `).ReplaceAllString(line, ""))
		}
	}
	sysctls, err := readSysctls("eth0")
	require.NoError(t, err)
	for _, key := range sortedKeys(sysctls) {
		fmt.Fprintln(&b, key, sysctls[key])
	}
	return b.String()
}

// newUplinks never sees the machine's own devices.
func newUplinks(t *testing.T, dir string, specs ...Spec) *Uplinks {
	t.Helper()
	log := logrus.New()
	log.SetOutput(t.Output())
	u, err := New(Options{Dir: dir, Sys: t.TempDir(), RunDir: "/run/test", Absence: 50 * time.Millisecond, Log: log}, specs)
	require.NoError(t, err)
	return u
}

var vdev = Spec{Link: "eth0", VDev: "net_af_packet"}

func TestTakeAndRestore(t *testing.T) {
	inNetns(t)
	newHost(t)
	before := show(t)
	dir := t.TempDir()
	u := newUplinks(t, dir, vdev)
	require.NoError(t, u.Take())
	require.Equal(t, before, show(t), "the veth is to the host what the NIC was")
	require.Len(t, u.Held(), 1)
	require.Equal(t, "swh-eth0", u.Held()[0].HostLink)
	require.NoError(t, u.Take(), "VPP is started again")
	require.Equal(t, before, show(t))
	require.NoError(t, u.Restore())
	require.Equal(t, before, show(t))
	require.Equal(t, "far0", peerOf(t, "eth0"), "it is the NIC")
	require.NoError(t, u.Restore(), "again: nothing to do")
	require.Empty(t, u.Held())
	names, err := u.Saved()
	require.NoError(t, err)
	require.Empty(t, names)
}

func peerOf(t *testing.T, name string) string {
	l, err := netlink.LinkByName(name)
	require.NoError(t, err)
	p, err := netlink.LinkByIndex(l.Attrs().ParentIndex)
	require.NoError(t, err)
	return p.Attrs().Name
}

// TestRestoreFromEveryStep ends the taking, and the restoring, after each of
// their steps; a manager that knows nothing of it repairs.
func TestRestoreFromEveryStep(t *testing.T) {
	type step struct {
		name string
		do   func(t *testing.T, u *Uplinks, d *Description)
	}
	taking := []step{
		{"described", func(t *testing.T, u *Uplinks, d *Description) {
			var err error
			*d, _, err = u.describe(vdev)
			require.NoError(t, err)
			require.NoError(t, u.store.save(*d))
		}},
		{"down", func(t *testing.T, _ *Uplinks, _ *Description) { ip(t, "link set eth0 down") }},
		{"renamed", func(t *testing.T, _ *Uplinks, d *Description) { ip(t, "link set eth0 name "+d.Aside) }},
		{"aside", func(t *testing.T, _ *Uplinks, d *Description) { require.NoError(t, putAside(*d)) }},
		{"veth", func(t *testing.T, _ *Uplinks, d *Description) { require.NoError(t, makeVeth(*d)) }},
		{"some settings", func(t *testing.T, _ *Uplinks, d *Description) {
			s := d.Settings
			s.Addresses, s.Routes, s.NextHops = s.Addresses[:2], nil, nil
			require.NoError(t, apply(d.Link, s, 0))
		}},
		{"all settings", func(t *testing.T, _ *Uplinks, d *Description) { require.NoError(t, apply(d.Link, d.Settings, 0)) }},
		{"taken", func(t *testing.T, u *Uplinks, d *Description) {
			d.Phase = PhaseTaken
			require.NoError(t, u.store.save(*d))
		}},
		{"read again", func(t *testing.T, u *Uplinks, d *Description) { require.NoError(t, u.update(d)) }},
		{"veth gone", func(t *testing.T, _ *Uplinks, d *Description) { require.NoError(t, removeVeth(d.HostLink)) }},
		{"loud again", func(t *testing.T, u *Uplinks, d *Description) {
			_, err := u.giveBack(*d)
			require.NoError(t, err)
		}},
		{"name back", func(t *testing.T, _ *Uplinks, d *Description) { require.NoError(t, bringBack(d.Aside, *d)) }},
		{"some settings back", func(t *testing.T, _ *Uplinks, d *Description) {
			s := d.Settings
			s.Addresses, s.Routes, s.NextHops = s.Addresses[:3], nil, nil
			require.NoError(t, apply(d.Link, s, 0))
		}},
		{"all settings back", func(t *testing.T, _ *Uplinks, d *Description) { require.NoError(t, apply(d.Link, d.Settings, 0)) }},
	}
	for i := range taking {
		t.Run(taking[i].name, func(t *testing.T) {
			inNetns(t)
			newHost(t)
			before := show(t)
			dir := t.TempDir()
			u := newUplinks(t, dir, vdev)
			var d Description
			for _, s := range taking[:i+1] {
				s.do(t, u, &d)
			}
			require.NoError(t, newUplinks(t, dir).Restore())
			require.Equal(t, before, show(t))
			require.Equal(t, "far0", peerOf(t, "eth0"))
			for _, gone := range []string{d.Aside, d.HostLink} {
				l, err := findLink(gone)
				require.NoError(t, err)
				require.Nil(t, l)
			}
		})
	}
}

func TestAnUplinkThatIsNotWantedAnyMoreIsRestored(t *testing.T) {
	inNetns(t)
	newHost(t)
	before := show(t)
	dir := t.TempDir()
	require.NoError(t, newUplinks(t, dir, vdev).Take())
	next := newUplinks(t, dir)
	require.NoError(t, next.Take())
	require.Empty(t, next.Held())
	require.Equal(t, before, show(t))
	require.Equal(t, "far0", peerOf(t, "eth0"))
}

func TestChangesWhileVPPHasTheNICComeBack(t *testing.T) {
	inNetns(t)
	newHost(t)
	u := newUplinks(t, t.TempDir(), vdev)
	require.NoError(t, u.Take())
	ip(t, "addr del 10.9.0.7/24 dev eth0")
	ip(t, "addr add 10.9.8.1/24 dev eth0")
	ip(t, "route replace default via 10.9.8.2 metric 100")
	ip(t, "link set eth0 mtu 1400")
	now := show(t)
	require.NoError(t, u.Restore())
	require.Equal(t, now, show(t))
}

func TestRoutesThatCannotComeBackDoNotHoldUpTheRest(t *testing.T) {
	inNetns(t)
	newHost(t)
	before := show(t)
	ip(t, "link add other0 type veth peer name other1")
	ip(t, "link set other0 up")
	ip(t, "link set other1 up")
	ip(t, "addr add 10.10.0.1/24 dev other0")
	ip(t, "route add 10.80.0.0/16 nexthop via 10.9.0.2 dev eth0 nexthop via 10.10.0.2 dev other0")
	dir := t.TempDir()
	u := newUplinks(t, dir, vdev)
	d, _, err := u.describe(vdev)
	require.NoError(t, err)
	require.NoError(t, u.store.save(d))
	require.NoError(t, putAside(d))
	ip(t, "link del other0")
	require.NoError(t, newUplinks(t, dir).Restore())
	require.Equal(t, before, show(t))
}

func TestTheHostGetsItsNICWhenVPPStaysAway(t *testing.T) {
	inNetns(t)
	newHost(t)
	before := show(t)
	u := newUplinks(t, t.TempDir(), vdev)
	require.NoError(t, u.Take())
	u.Ended()
	require.NoError(t, u.Take(), "VPP is back at once")
	time.Sleep(100 * time.Millisecond)
	require.NotEqual(t, "far0", peerOf(t, "eth0"))
	require.NoError(t, u.Restore())
	require.Equal(t, before, show(t))
	// The timer's goroutine is in another namespace than this test's thread:
	// see the manager's own test for the restoring itself.
}

func TestLinksThatAreInUseAreNotTaken(t *testing.T) {
	inNetns(t)
	newHost(t)
	before := show(t)
	refused := func(spec Spec, name string) {
		t.Helper()
		u := newUplinks(t, t.TempDir(), spec)
		err := u.Take()
		require.ErrorContains(t, err, name)
		names, err := u.Saved()
		require.NoError(t, err)
		require.Empty(t, names)
	}
	refused(Spec{Link: "nosuch0", VDev: "net_af_packet"}, "nosuch0")
	ip(t, "link add link eth0 name mv0 type macvlan mode bridge")
	refused(vdev, "mv0 (macvlan) is on top of eth0")
	ip(t, "link del mv0")
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}); err == nil {
		ip(t, "link set eth0 master br0")
		refused(vdev, "eth0 is a port of br0")
		ip(t, "link del br0")
	} else if !errors.Is(err, unix.EOPNOTSUPP) {
		require.NoError(t, err)
	}
	require.Equal(t, before, show(t))
}

// TestPCIDevice takes a NIC on a PCI bus of files: the link goes when the device
// is unbound, and another of another name comes when it is bound again.
func TestPCIDevice(t *testing.T) {
	inNetns(t)
	newHost(t)
	before := show(t)
	f := newFakePCI(t)
	f.addDevice(nic, "ixgbe", "eth0", "7")
	f.addDriver(driverVFIO)
	dir := t.TempDir()
	newPCI := func(specs ...Spec) *Uplinks {
		u := newUplinks(t, dir, specs...)
		u.pci = f.pci
		return u
	}
	u := newPCI(Spec{PCI: nic})
	require.ErrorContains(t, u.Take(), "of another network namespace")
	l, err := findLink("eth0")
	require.NoError(t, err)
	f.write("class/net/eth0/ifindex", strconv.Itoa(l.Attrs().Index))
	f.write("class/net/eth0/address", l.Attrs().HardwareAddr.String())

	gone := false
	f.shown = func(_ string, there bool) {
		if there {
			// What udev may call it; the address is the device's own.
			ip(t, "link add ens3 address 02:00:00:00:00:01 type veth peer name far0 address 02:00:00:00:00:02")
			ip(t, "link set far0 mtu 1480 up")
			return
		}
		if gone {
			return
		}
		gone = true
		l, err := findLink("eth0")
		require.NoError(t, err)
		require.NotNil(t, l)
		require.Zero(t, l.Attrs().Flags&net.FlagUp, "it was brought down first")
		require.NoError(t, netlink.LinkDel(l))
	}
	require.NoError(t, u.Take())
	require.Equal(t, driverVFIO, f.driver(nic))
	require.Equal(t, before, show(t))
	require.NoError(t, newPCI(Spec{Link: "eth0"}).Take(), "another manager finds it taken")
	require.FileExists(t, filepath.Join(dir, "run-test", "eth0.json"))

	f.links[nic] = "ens3"
	require.NoError(t, newPCI().Restore())
	require.Equal(t, "ixgbe", f.driver(nic))
	require.Equal(t, before, show(t))
	require.Equal(t, "far0", peerOf(t, "eth0"))
}

// TestBifurcatedDevice: the kernel's driver stays, and its link is put aside.
func TestBifurcatedDevice(t *testing.T) {
	inNetns(t)
	newHost(t)
	before := show(t)
	f := newFakePCI(t)
	f.addDevice(nic, "mlx5_core", "eth0", "7")
	l, err := findLink("eth0")
	require.NoError(t, err)
	f.write("class/net/eth0/ifindex", strconv.Itoa(l.Attrs().Index))
	f.write("class/net/eth0/address", l.Attrs().HardwareAddr.String())
	dir := t.TempDir()
	u := newUplinks(t, dir, Spec{Link: "eth0"})
	u.pci = f.pci
	require.NoError(t, u.Take())
	require.Equal(t, "mlx5_core", f.driver(nic))
	require.Equal(t, before, show(t))
	require.Contains(t, u.Section("me", 1), "dev "+nic+" { name dpdk-eth0 num-rx-queues 1 }")
	require.NotContains(t, u.Section("me", 1), "no-pci")
	require.Equal(t, "far0", peerOf(t, "swn-eth0"))
	require.NoError(t, newUplinks(t, dir).Restore())
	require.Equal(t, before, show(t))
	require.Equal(t, "far0", peerOf(t, "eth0"))
}

func TestAfterARebootOnlyTheDriverIsRestored(t *testing.T) {
	inNetns(t)
	newHost(t)
	before := show(t)
	f := newFakePCI(t)
	f.addDevice(nic, "ixgbe", "eth0", "7")
	dir := t.TempDir()
	u := newUplinks(t, dir)
	u.pci = f.pci
	d := Description{Phase: PhaseTaken, BootID: "another", Link: "eth0", PCI: nic, Driver: "ixgbe", HostLink: "swh-eth0"}
	require.NoError(t, u.store.save(d))
	require.NoError(t, u.Restore())
	require.Equal(t, before, show(t))
	names, err := u.Saved()
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestADeviceThatWasTakenOutOfTheMachineIsNoObstacle(t *testing.T) {
	inNetns(t)
	newHost(t)
	f := newFakePCI(t)
	f.addDevice("0000:04:00.0", "another_driver", "eth7", "7")
	for _, device := range []string{nic, "0000:04:00.0"} {
		u := newUplinks(t, t.TempDir())
		u.pci = f.pci
		d := Description{Phase: PhaseTaken, BootID: "another", Link: "eth0", PCI: device, Driver: "ixgbe", HostLink: "swh-eth0"}
		require.NoError(t, u.store.save(d))
		require.NoError(t, u.Repair(), "it was taken out, or is another one now")
		names, err := u.Saved()
		require.NoError(t, err)
		require.Empty(t, names)
	}
	require.Equal(t, "another_driver", f.driver("0000:04:00.0"))
}

// udev renames a link in the moment after its driver has shown it.
func TestALinkThatIsRenamedWhileItComesBack(t *testing.T) {
	inNetns(t)
	newHost(t)
	f := newFakePCI(t)
	f.addDriver(driverVFIO)
	f.addDevice(nic, "ixgbe", "eth0", "7")
	l, err := findLink("eth0")
	require.NoError(t, err)
	f.write("class/net/eth0/ifindex", strconv.Itoa(l.Attrs().Index))
	f.write("class/net/eth0/address", l.Attrs().HardwareAddr.String())
	dir := t.TempDir()
	u := newUplinks(t, dir, Spec{Link: "eth0"})
	u.pci = f.pci
	renamed := make(chan struct{})
	gone := false
	f.shown = func(_ string, there bool) {
		if !there {
			if !gone {
				ip(t, "link del eth0")
			}
			gone = true
			return
		}
		// sysfs was read before, the link is looked up after.
		ip(t, "link add renamed0 address 02:00:00:00:00:01 type veth peer name far0")
		go func() {
			defer close(renamed)
			time.Sleep(120 * time.Millisecond)
			old := filepath.Join(f.root, "bus/pci/devices", nic, "net/eth9")
			_ = os.Rename(old, filepath.Join(filepath.Dir(old), "renamed0"))
		}()
	}
	require.NoError(t, u.Take())
	f.links[nic] = "eth9"
	require.NoError(t, newUplinksOn(t, dir, f.pci).Restore())
	<-renamed
	require.Equal(t, "far0", peerOf(t, "eth0"))
	require.Contains(t, ip(t, "addr show dev eth0"), "10.9.0.1/24")
}

func newUplinksOn(t *testing.T, dir string, p pci) *Uplinks {
	u := newUplinks(t, dir)
	u.pci = p
	return u
}

// A name of ours that somebody else uses would be taken for what an earlier
// manager left, and removed in the end.
func TestNamesThatAreTaken(t *testing.T) {
	for _, name := range []string{"swh-eth0", "swn-eth0"} {
		t.Run(name, func(t *testing.T) {
			inNetns(t)
			newHost(t)
			ip(t, "link add "+name+" type veth peer name other0")
			before := show(t)
			u := newUplinks(t, t.TempDir(), Spec{Link: "eth0", VDev: "net_af_packet"})
			err := u.Take()
			require.ErrorIs(t, err, ErrInUse)
			require.ErrorContains(t, err, name)
			require.NoError(t, u.Restore())
			require.Equal(t, before, show(t))
			ip(t, "link show "+name)
		})
	}
}

// farNamespace makes a second namespace; the test stays where it is.
func farNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	here, err := netns.Get()
	require.NoError(t, err)
	defer here.Close()
	far, err := netns.New()
	require.NoError(t, err)
	t.Cleanup(func() { far.Close() })
	require.NoError(t, netns.Set(here))
	return far
}

// inside runs do in a namespace.
func inside(t *testing.T, ns netns.NsHandle, do func()) {
	t.Helper()
	here, err := netns.Get()
	require.NoError(t, err)
	defer here.Close()
	require.NoError(t, netns.Set(ns))
	defer func() { require.NoError(t, netns.Set(here)) }()
	do()
}
