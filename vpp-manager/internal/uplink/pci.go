package uplink

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrPCI: a PCI device cannot be given to VPP, or back.
var ErrPCI = errors.New("PCI device")

// Drivers that hand a device to a process.
const (
	driverVFIO = "vfio-pci"
	driverUIO  = "uio_pci_generic"
)

// bifurcated are the kernel drivers that stay while DPDK drives the device
// beside them: it is not unbound, and its link is put aside.
func bifurcated(driver string) bool {
	return slices.Contains([]string{"mlx4_core", "mlx5_core", "mana"}, driver)
}

// pci is the PCI bus as sysfs shows it (sysfs-bus-pci in the kernel's ABI
// documentation).
type pci struct {
	// root is where sysfs is, /sys but in tests.
	root string
	// noIOMMU allows devices to be used without one.
	noIOMMU bool
	// patience is how long a driver may take to show its link.
	patience time.Duration
	// settle acts as the kernel does on what was written. Nil: the kernel does.
	settle func()
}

func (p pci) device(a string) string { return filepath.Join(p.root, "bus/pci/devices", a) }

// driver bound to a device; empty: none.
func (p pci) driver(a string) string {
	target, err := os.Readlink(filepath.Join(p.device(a), "driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// addressOf finds the device behind a link.
func (p pci) addressOf(link string) (string, error) {
	path, err := filepath.EvalSymlinks(filepath.Join(p.root, "class/net", link, "device"))
	if err != nil {
		return "", fmt.Errorf("%w: link %s has none behind it (%w); a NIC is needed, or a virtual device: %s=dpdk:net_af_packet", ErrPCI, link, err, link)
	}
	a := filepath.Base(path)
	if !pciAddress.MatchString(a) {
		// A virtio device is one level below its PCI device.
		a = filepath.Base(filepath.Dir(path))
	}
	if !pciAddress.MatchString(a) {
		return "", fmt.Errorf("%w: link %s is on %s, which is not on the PCI bus", ErrPCI, link, path)
	}
	return a, nil
}

// shows reports whether sysfs tells of this very link: in a network namespace
// of one's own it may be that of another one, with other links of the same name.
func (p pci) shows(name string, index int, mac string) error {
	read := func(file string) string {
		b, _ := os.ReadFile(filepath.Join(p.root, "class/net", name, file)) // absent is different as well
		return strings.TrimSpace(string(b))
	}
	if i, m := read("ifindex"), read("address"); i != strconv.Itoa(index) || m != mac {
		return fmt.Errorf("%w: link %s has number %d and MAC %s, and %s tells of number %q, MAC %q: it is of another network namespace; mount sysfs in this one",
			ErrPCI, name, index, mac, p.root, i, m)
	}
	return nil
}

// links of a device.
func (p pci) links(a string) []string {
	var out []string
	for _, pattern := range []string{"net/*", "virtio*/net/*"} {
		found, _ := filepath.Glob(filepath.Join(p.device(a), pattern)) // the pattern is well formed
		for _, f := range found {
			out = append(out, filepath.Base(f))
		}
	}
	slices.Sort(out)
	return out
}

// target is the driver that a device is bound to for VPP. Everything that can
// be wrong is found here, before anything is touched.
func (p pci) target(a string) (string, error) {
	if _, err := os.Stat(p.device(a)); err != nil {
		return "", fmt.Errorf("%w %s: %w; lspci -D lists those that there are", ErrPCI, a, err)
	}
	group, err := filepath.EvalSymlinks(filepath.Join(p.device(a), "iommu_group"))
	hasIOMMU := err == nil
	vfio, uio := p.hasDriver(driverVFIO), p.hasDriver(driverUIO)
	switch {
	case hasIOMMU && vfio:
		return driverVFIO, p.groupFree(a, group)
	case hasIOMMU:
		return "", fmt.Errorf("%w %s: the driver %s is not loaded; run modprobe %s", ErrPCI, a, driverVFIO, driverVFIO)
	case !p.noIOMMU:
		return "", fmt.Errorf("%w %s: no IOMMU protects memory from it; turn it on (firmware, intel_iommu=on or amd_iommu=on on the kernel's command line), or accept that the device can write to all memory with --uplink-no-iommu", ErrPCI, a)
	case vfio && p.exists(noIOMMUSwitch):
		return driverVFIO, nil
	case uio:
		return driverUIO, nil
	}
	return "", fmt.Errorf("%w %s: without an IOMMU it needs %s (with its no-IOMMU mode) or %s, and neither is loaded; run modprobe %s", ErrPCI, a, driverVFIO, driverUIO, driverVFIO)
}

const noIOMMUSwitch = "module/vfio/parameters/enable_unsafe_noiommu_mode"

func (p pci) exists(path string) bool {
	_, err := os.Stat(filepath.Join(p.root, path))
	return err == nil
}

func (p pci) hasDriver(name string) bool { return p.exists("bus/pci/drivers/" + name) }

// groupFree: the devices that the IOMMU cannot tell from this one are not used
// by the host. VFIO hands out a group as a whole.
func (p pci) groupFree(a, group string) error {
	members, err := os.ReadDir(filepath.Join(group, "devices"))
	if err != nil {
		return fmt.Errorf("%w %s: IOMMU group: %w", ErrPCI, a, err)
	}
	for _, m := range members {
		const bridge = "0x0604" // the class of PCI bridges, which VFIO leaves alone
		class, _ := os.ReadFile(filepath.Join(p.device(m.Name()), "class"))
		driver := p.driver(m.Name())
		if m.Name() == a || driver == "" || driver == driverVFIO || driver == "pci-stub" || strings.HasPrefix(string(class), bridge) {
			continue
		}
		return fmt.Errorf("%w %s: the IOMMU cannot tell it from %s, which the host uses (driver %s); give both to VPP, or move one to another slot", ErrPCI, a, m.Name(), driver)
	}
	return nil
}

// bind gives a device to a driver; empty: the one that the kernel chooses.
// Bound already is done.
func (p pci) bind(a, driver string) error {
	now := p.driver(a)
	if now != "" && now == driver {
		return p.write(filepath.Join(p.device(a), "driver_override"), overrideFor(driver))
	}
	if driver == driverVFIO && !p.exists("bus/pci/devices/"+a+"/iommu_group") {
		if err := p.write(filepath.Join(p.root, noIOMMUSwitch), "1"); err != nil {
			return err
		}
	}
	if now != "" {
		if err := p.write(filepath.Join(p.device(a), "driver/unbind"), a); err != nil {
			return err
		}
	}
	if err := p.write(filepath.Join(p.device(a), "driver_override"), overrideFor(driver)); err != nil {
		return err
	}
	if err := p.write(filepath.Join(p.root, "bus/pci/drivers_probe"), a); err != nil {
		return err
	}
	if p.settle != nil {
		p.settle()
	}
	if now = p.driver(a); now == "" || driver != "" && now != driver {
		return fmt.Errorf("%w %s: it was to be bound to %q and has driver %q; see the kernel's log (dmesg)", ErrPCI, a, driver, now)
	}
	return nil
}

// overrideFor is what driver_override is written with: the drivers for user
// space take no device by themselves, and all others do. A newline clears it.
func overrideFor(driver string) string {
	if driver == driverVFIO || driver == driverUIO {
		return driver
	}
	return "\n"
}

func (p pci) write(path, value string) error {
	if err := os.WriteFile(path, []byte(value), 0o200); err != nil {
		return fmt.Errorf("%w: %w", ErrPCI, err)
	}
	return nil
}

// waitLink waits until a device's driver shows its link.
func (p pci) waitLink(a string) (string, error) {
	for deadline := time.Now().Add(p.patience); ; time.Sleep(10 * time.Millisecond) {
		if links := p.links(a); len(links) > 0 {
			return links[0], nil
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("%w %s: its driver %s shows no network interface within %s; see the kernel's log (dmesg)", ErrPCI, a, p.driver(a), p.patience)
		}
	}
}
