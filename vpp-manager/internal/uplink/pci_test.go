package uplink

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fakePCI is a sysfs tree, and the kernel behind it.
type fakePCI struct {
	pci
	t *testing.T
	// native drivers by device, and the link that each shows.
	native map[string]string
	links  map[string]string
	// shown is called when a device's driver shows or removes its link.
	shown func(link string, there bool)
}

const nic = "0000:03:00.0"

func newFakePCI(t *testing.T) *fakePCI {
	t.Helper()
	f := &fakePCI{t: t, native: map[string]string{}, links: map[string]string{}}
	f.pci = pci{root: t.TempDir(), patience: 50 * time.Millisecond, settle: f.act}
	f.mkdir("class/net")
	f.mkdir("bus/pci/drivers")
	f.write("bus/pci/drivers_probe", "")
	return f
}

func (f *fakePCI) mkdir(path string) string {
	full := filepath.Join(f.root, path)
	require.NoError(f.t, os.MkdirAll(full, 0o755))
	return full
}

func (f *fakePCI) write(path, text string) {
	require.NoError(f.t, os.MkdirAll(filepath.Dir(filepath.Join(f.root, path)), 0o755))
	require.NoError(f.t, os.WriteFile(filepath.Join(f.root, path), []byte(text), 0o644))
}

func (f *fakePCI) read(path string) string {
	b, err := os.ReadFile(filepath.Join(f.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (f *fakePCI) addDriver(name string) { f.write("bus/pci/drivers/"+name+"/unbind", "") }

// addDevice with its native driver, which shows a link; group "": no IOMMU.
func (f *fakePCI) addDevice(a, driver, link, group string) {
	f.addDriver(driver)
	f.native[a], f.links[a] = driver, link
	dir := f.mkdir("bus/pci/devices/" + a)
	f.write("bus/pci/devices/"+a+"/driver_override", "(null)\n")
	f.write("bus/pci/devices/"+a+"/class", "0x020000\n")
	if group != "" {
		g := f.mkdir("kernel/iommu_groups/" + group)
		f.mkdir("kernel/iommu_groups/" + group + "/devices/" + a)
		require.NoError(f.t, os.Symlink(g, filepath.Join(dir, "iommu_group")))
	}
	f.bound(a, driver)
}

func (f *fakePCI) bound(a, driver string) {
	dir := filepath.Join(f.root, "bus/pci/devices", a)
	link := f.links[a]
	require.NoError(f.t, os.RemoveAll(filepath.Join(dir, "driver")))
	require.NoError(f.t, os.RemoveAll(filepath.Join(dir, "net")))
	if link != "" {
		require.NoError(f.t, os.RemoveAll(filepath.Join(f.root, "class/net", link)))
	}
	if driver != "" {
		require.NoError(f.t, os.Symlink(filepath.Join(f.root, "bus/pci/drivers", driver), filepath.Join(dir, "driver")))
	}
	there := driver == f.native[a]
	if there && link != "" {
		f.mkdir("bus/pci/devices/" + a + "/net/" + link)
		f.mkdir("class/net/" + link)
		require.NoError(f.t, os.Symlink(dir, filepath.Join(f.root, "class/net", link, "device")))
	}
	if f.shown != nil {
		f.shown(link, there)
	}
}

// act does what the kernel does on what was written since the last time.
func (f *fakePCI) act() {
	for a := range f.native {
		if d := f.driver(a); d != "" && f.read("bus/pci/drivers/"+d+"/unbind") == a {
			f.write("bus/pci/drivers/"+d+"/unbind", "")
			f.bound(a, "")
		}
		if f.read("bus/pci/drivers_probe") != a || f.driver(a) != "" {
			continue
		}
		f.write("bus/pci/drivers_probe", "")
		driver := f.read("bus/pci/devices/" + a + "/driver_override")
		if driver == "" || driver == "(null)" {
			driver = f.native[a]
		}
		if f.hasDriver(driver) {
			f.bound(a, driver)
		}
	}
}

func TestPCITarget(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(f *fakePCI)
		want    string
		err     string
	}{
		{"IOMMU and VFIO", func(f *fakePCI) { f.addDevice(nic, "ixgbe", "eth0", "7"); f.addDriver(driverVFIO) }, driverVFIO, ""},
		{"VFIO is not loaded", func(f *fakePCI) { f.addDevice(nic, "ixgbe", "eth0", "7") }, "", "modprobe vfio-pci"},
		{"UIO does not do where there is an IOMMU", func(f *fakePCI) { f.addDevice(nic, "ixgbe", "eth0", "7"); f.addDriver(driverUIO) }, "", "modprobe vfio-pci"},
		{"no IOMMU, not allowed", func(f *fakePCI) { f.addDevice(nic, "ixgbe", "eth0", ""); f.addDriver(driverVFIO) }, "", "--uplink-no-iommu"},
		{"no IOMMU, VFIO without that mode", func(f *fakePCI) {
			f.noIOMMU = true
			f.addDevice(nic, "ixgbe", "eth0", "")
			f.addDriver(driverVFIO)
		}, "", "neither is loaded"},
		{"no IOMMU, VFIO with that mode", func(f *fakePCI) {
			f.noIOMMU = true
			f.addDevice(nic, "ixgbe", "eth0", "")
			f.addDriver(driverVFIO)
			f.write(noIOMMUSwitch, "N")
		}, driverVFIO, ""},
		{"no IOMMU, UIO", func(f *fakePCI) { f.noIOMMU = true; f.addDevice(nic, "ixgbe", "eth0", ""); f.addDriver(driverUIO) }, driverUIO, ""},
		{"the group has a device of the host's", func(f *fakePCI) {
			f.addDevice(nic, "ixgbe", "eth0", "7")
			f.addDevice("0000:03:00.1", "ixgbe", "eth1", "7")
			f.addDriver(driverVFIO)
		}, "", "cannot tell it from 0000:03:00.1"},
		{"the group has a bridge", func(f *fakePCI) {
			f.addDevice(nic, "ixgbe", "eth0", "7")
			f.addDevice("0000:00:1c.0", "pcieport", "", "7")
			f.write("bus/pci/devices/0000:00:1c.0/class", "0x060400\n")
			f.addDriver(driverVFIO)
		}, driverVFIO, ""},
		{"absent", func(*fakePCI) {}, "", "lspci"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakePCI(t)
			tt.prepare(f)
			got, err := f.target(nic)
			if tt.err != "" {
				require.ErrorIs(t, err, ErrPCI)
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

func TestPCIBindAndBack(t *testing.T) {
	f := newFakePCI(t)
	f.addDevice(nic, "ixgbe", "eth0", "7")
	f.addDriver(driverVFIO)
	a, err := f.addressOf("eth0")
	require.NoError(t, err)
	require.Equal(t, nic, a)
	for range 2 { // the second time there is nothing to do
		require.NoError(t, f.bind(nic, driverVFIO))
		require.Equal(t, driverVFIO, f.driver(nic))
		require.Equal(t, driverVFIO, f.read("bus/pci/devices/"+nic+"/driver_override"))
		require.Empty(t, f.pci.links(nic))
	}
	for range 2 {
		require.NoError(t, f.bind(nic, "ixgbe"))
		require.Equal(t, "ixgbe", f.driver(nic))
		require.Empty(t, f.read("bus/pci/devices/"+nic+"/driver_override"), "other drivers may take it again")
		link, err := f.waitLink(nic)
		require.NoError(t, err)
		require.Equal(t, "eth0", link)
	}
	_, err = f.addressOf("nothing0")
	require.ErrorIs(t, err, ErrPCI)
	require.ErrorContains(t, err, "net_af_packet")
}

func TestPCIBindSaysWhatItGot(t *testing.T) {
	f := newFakePCI(t)
	f.addDevice(nic, "ixgbe", "eth0", "7")
	err := f.bind(nic, driverVFIO) // not loaded: the device is left without
	require.ErrorIs(t, err, ErrPCI)
	require.ErrorContains(t, err, `it was to be bound to "vfio-pci" and has driver ""`)
	require.NoError(t, f.bind(nic, "ixgbe"), "and can be repaired")

	f.links[nic] = ""
	f.bound(nic, "ixgbe")
	_, err = f.waitLink(nic)
	require.ErrorContains(t, err, "shows no network interface")
}

func TestNoIOMMUModeIsTurnedOn(t *testing.T) {
	f := newFakePCI(t)
	f.noIOMMU = true
	f.addDevice(nic, "ixgbe", "eth0", "")
	f.addDriver(driverVFIO)
	f.write(noIOMMUSwitch, "N")
	require.NoError(t, f.bind(nic, driverVFIO))
	require.Equal(t, "1", f.read(noIOMMUSwitch))
}
