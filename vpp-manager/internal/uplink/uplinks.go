package uplink

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/api/node"
)

// ErrInUse: something on the node stands on the link, and would go with it.
var ErrInUse = errors.New("link is in use")

// Options say where things are.
type Options struct {
	// Dir holds the descriptions, in a folder for each run directory: there may
	// be several managers on a machine. Default DefaultDir.
	Dir string
	// RunDir is the manager's run directory, an absolute path.
	RunDir string
	// Sys is where sysfs is. Default /sys.
	Sys string
	// NoIOMMU allows devices that no IOMMU holds back from memory.
	NoIOMMU bool
	// Patience is how long a NIC's driver may take to show its link. Default
	// 15 s.
	Patience time.Duration
	// Absence is how long the host waits for VPP to come back before it gets
	// its uplinks back. Default 3 s.
	Absence time.Duration
	Log     logrus.FieldLogger
}

// Uplinks are the dedicated uplinks of this node.
type Uplinks struct {
	specs []Spec
	store store
	pci   pci
	log   logrus.FieldLogger

	absence time.Duration

	mu     sync.Mutex // one of the methods at a time
	absent *time.Timer
	held   []Description // as taken, in the order of specs
}

// New checks what is asked for, and touches nothing.
func New(o Options, specs []Spec) (*Uplinks, error) {
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	if o.Sys == "" {
		o.Sys = "/sys"
	}
	if o.Patience <= 0 {
		o.Patience = 15 * time.Second
	}
	if o.Absence <= 0 {
		o.Absence = 3 * time.Second
	}
	if !filepath.IsAbs(o.RunDir) {
		return nil, fmt.Errorf("uplinks: RunDir: %q is not an absolute path", o.RunDir)
	}
	if o.Log == nil {
		return nil, errors.New("uplinks: Log: none given")
	}
	seen := map[string]bool{}
	vdevs := 0
	for _, s := range specs {
		for _, key := range []string{s.Link, s.PCI} {
			if key != "" && seen[key] {
				return nil, fmt.Errorf("%w %q: named twice", ErrSpec, key)
			}
			seen[key] = true
		}
		if s.VDev != "" {
			vdevs++
		}
	}
	if vdevs > 1 {
		// VPP names all of them alike.
		return nil, fmt.Errorf("%w: %d virtual devices; VPP can have one", ErrSpec, vdevs)
	}
	return &Uplinks{
		specs: specs, absence: o.Absence, store: newStore(o.Dir, o.RunDir), log: o.Log,
		pci: pci{root: o.Sys, noIOMMU: o.NoIOMMU, patience: o.Patience},
	}, nil
}

// Take readies all uplinks for VPP: it is to be called before each start of
// VPP, while none runs. An uplink that is taken already stays so; what a killed
// manager left half done is undone first. When one cannot be taken, none is.
func (u *Uplinks) Take() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.present()
	if err := u.repair(); err != nil {
		return err
	}
	u.held = nil
	for _, s := range u.specs {
		d, err := u.take(s)
		if err != nil {
			return errors.Join(fmt.Errorf("uplink %s: %w", s, err), u.restoreAll())
		}
		u.held = append(u.held, d)
	}
	return nil
}

// Repair undoes what an earlier manager left half done, or what is not wanted
// any more. Take does so too.
func (u *Uplinks) Repair() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.repair()
}

// repair restores what is neither wanted any more nor taken as it is wanted.
func (u *Uplinks) repair() error {
	names, err := u.store.list()
	if err != nil {
		return err
	}
	for _, name := range names {
		d, err := u.store.load(name)
		if err != nil {
			return err
		}
		if d.Phase == PhaseTaken && d.BootID == bootID() && u.wants(d) && u.intact(d) {
			continue
		}
		u.log.WithFields(logrus.Fields{"uplink": name, "phase": d.Phase}).Warn("Uplink was left by an earlier vpp-manager; it is restored")
		if err := u.restore(d); err != nil {
			return err
		}
	}
	return nil
}

func (u *Uplinks) wants(d Description) bool {
	for _, s := range u.specs {
		if matches(s, d) {
			return true
		}
	}
	return false
}

// matches: the description is of what is asked for.
func matches(s Spec, d Description) bool {
	return (s.Link == "" || s.Link == d.Link) && (s.PCI == "" || s.PCI == d.PCI) && s.VDev == d.VDev
}

// intact: what VPP needs of a taken uplink is there.
func (u *Uplinks) intact(d Description) bool {
	for _, name := range []string{d.Link, d.HostLink, d.Aside} {
		if name == "" {
			continue
		}
		if l, err := findLink(name); err != nil || l == nil {
			return false
		}
	}
	if d.PCI == "" || d.KeepsLink {
		return true
	}
	now := u.pci.driver(d.PCI)
	return now == driverVFIO || now == driverUIO
}

// take is one uplink's.
func (u *Uplinks) take(s Spec) (Description, error) {
	names, err := u.store.list()
	if err != nil {
		return Description{}, err
	}
	for _, name := range names {
		if d, err := u.store.load(name); err != nil {
			return Description{}, err
		} else if matches(s, d) {
			return d, nil
		}
	}
	d, target, err := u.describe(s)
	if err != nil {
		return Description{}, err
	}
	if err := u.store.save(d); err != nil {
		return Description{}, err
	}
	// From here on there is something to undo.
	begin := time.Now()
	if err := u.hand(d, target); err != nil {
		return Description{}, err
	}
	d.Phase = PhaseTaken
	if err := u.store.save(d); err != nil {
		return Description{}, err
	}
	u.log.WithFields(logrus.Fields{"uplink": d.Link, "pci": d.PCI, "vdev": d.VDev, "host": d.HostLink, "duration": time.Since(begin)}).Info("Uplink is ready for VPP")
	return d, nil
}

// describe looks at an uplink and finds all that is wrong with it. target is
// the driver that its device is to be bound to; empty: it stays as it is.
func (u *Uplinks) describe(s Spec) (d Description, target string, err error) {
	d = Description{Phase: PhaseTaking, BootID: bootID(), Link: s.Link, PCI: s.PCI, VDev: s.VDev, KeepsLink: s.VDev != ""}
	if d.Link == "" {
		links := u.pci.links(d.PCI)
		if len(links) != 1 {
			return d, "", fmt.Errorf("%w %s: its links are %q, one is needed; its driver is %q", ErrPCI, d.PCI, links, u.pci.driver(d.PCI))
		}
		d.Link = links[0]
	}
	link, err := netlink.LinkByName(d.Link)
	if err != nil {
		return d, "", fmt.Errorf("link %s: %w", d.Link, err)
	}
	if s.VDev == "" {
		if err := u.pci.shows(d.Link, link.Attrs().Index, link.Attrs().HardwareAddr.String()); err != nil {
			return d, "", err
		}
		a, err := u.pci.addressOf(d.Link)
		if err != nil {
			return d, "", err
		}
		if d.PCI != "" && d.PCI != a {
			return d, "", fmt.Errorf("%w %s: link %s is on %s", ErrPCI, d.PCI, d.Link, a)
		}
		d.PCI = a
		if d.Driver = u.pci.driver(a); bifurcated(d.Driver) {
			d.KeepsLink = true
		} else if target, err = u.pci.target(a); err != nil {
			return d, "", err
		}
	}
	d.HostLink = HostLink(d.Link)
	if d.KeepsLink {
		d.Aside = standIn(asidePrefix, d.Link)
	}
	if err := alone(link); err != nil {
		return d, "", err
	}
	for _, name := range []string{d.HostLink, d.Aside} {
		if name == "" {
			continue
		}
		if l, err := findLink(name); err != nil {
			return d, "", err
		} else if l != nil {
			return d, "", fmt.Errorf("%w: the name %s, which is to stand in for %s, is that of a %s already; rename or remove it", ErrInUse, name, d.Link, l.Type())
		}
	}
	d.Settings, err = readSettings(link)
	return d, target, err
}

// alone: nothing stands on the link that the kernel would remove or leave
// behind with it.
func alone(link netlink.Link) error {
	a := link.Attrs()
	if a.MasterIndex != 0 {
		name := fmt.Sprintf("number %d", a.MasterIndex)
		if m, err := netlink.LinkByIndex(a.MasterIndex); err == nil {
			name = m.Attrs().Name
		}
		return fmt.Errorf("%w: %s is a port of %s; take it out, or use the driver af_xdp on %s", ErrInUse, a.Name, name, name)
	}
	all, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("links: %w", err)
	}
	for _, l := range all {
		o := l.Attrs()
		if o.ParentIndex == a.Index && l.Type() != "veth" && o.NetNsID < 0 {
			return fmt.Errorf("%w: %s (%s) is on top of %s; remove it, or use the driver af_xdp", ErrInUse, o.Name, l.Type(), a.Name)
		}
	}
	return nil
}

// hand gives the device to VPP's driver and the settings to the veth.
func (u *Uplinks) hand(d Description, target string) error {
	if d.KeepsLink {
		if err := putAside(d); err != nil {
			return err
		}
	} else {
		link, err := findLink(d.Link)
		if err != nil {
			return err
		}
		if link != nil {
			if err := netlink.LinkSetDown(link); err != nil {
				return fmt.Errorf("link %s: down: %w", d.Link, err)
			}
		}
		if err := u.pci.bind(d.PCI, target); err != nil {
			return err
		}
	}
	if err := makeVeth(d); err != nil {
		return err
	}
	return apply(d.Link, d.Settings, 0)
}

// Restore gives all uplinks back to the host, also those of an earlier manager.
// It is to be called when no VPP runs that has them: a device is not free
// before. What is restored already is no error.
func (u *Uplinks) Restore() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.present()
	return u.restoreAll()
}

// Ended is to be called when a VPP has ended: unless Take is called for the
// next one soon, the host gets its uplinks back.
func (u *Uplinks) Ended() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.present()
	if len(u.held) == 0 {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(u.absence, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.absent != t {
			return // VPP is back, or the uplinks are the host's
		}
		u.log.WithField("absence", u.absence).Warn("VPP does not come back: the host gets its uplinks back until it does")
		if err := u.restoreAll(); err != nil {
			u.log.WithError(err).Error("Uplinks")
		}
	})
	u.absent = t
}

// present: whoever waits for VPP to come back need not any more.
func (u *Uplinks) present() {
	if u.absent != nil {
		u.absent.Stop()
		u.absent = nil
	}
}

// Saved names the uplinks that are not the host's, or not wholly.
func (u *Uplinks) Saved() ([]string, error) { return u.store.list() }

func (u *Uplinks) restoreAll() error {
	names, err := u.store.list()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		d, err := u.store.load(name)
		if err == nil {
			err = u.restore(d)
		}
		errs = append(errs, err)
	}
	u.held = nil
	return errors.Join(errs...)
}

// restore is one uplink's. It begins anew wherever an earlier one ended.
func (u *Uplinks) restore(d Description) error {
	fail := func(err error) error {
		return fmt.Errorf("uplink %s is not restored: %w; its description stays in %s: run vpp-manager restore again", d.Link, err, u.store.path(d.Link))
	}
	begin := time.Now()
	sameBoot := d.BootID == bootID()
	if d.Phase == PhaseTaken && sameBoot {
		// The host's settings may have changed since they moved to the veth.
		if err := u.update(&d); err != nil {
			return fail(err)
		}
	}
	if sameBoot {
		if err := removeVeth(d.HostLink); err != nil {
			return fail(err)
		}
	}
	if !sameBoot {
		if err := u.afterReboot(d); err != nil {
			return fail(err)
		}
	} else {
		if err := u.bringHome(d); err != nil {
			return fail(err)
		}
		if err := apply(d.Link, d.Settings, time.Since(d.SavedAt)); errors.Is(err, errRoutes) {
			// What they depend on may be gone from the host by now: that is no
			// reason to do without the rest for ever.
			u.log.WithError(err).WithField("uplink", d.Link).Error("Some routes are not restored; add them by hand")
		} else if err != nil {
			return fail(err)
		}
		if err := verify(d); err != nil {
			return fail(err)
		}
	}
	if err := u.store.remove(d.Link); err != nil {
		return fail(err)
	}
	u.log.WithFields(logrus.Fields{"uplink": d.Link, "pci": d.PCI, "duration": time.Since(begin)}).Info("Uplink is the host's again")
	return nil
}

// update reads the settings from the veth into the description and stores it.
func (u *Uplinks) update(d *Description) error {
	end, err := findLink(d.HostLink)
	if err != nil {
		return err
	}
	link, err := findLink(d.Link)
	if err != nil {
		return err
	}
	if end == nil || link == nil || link.Type() != "veth" || link.Attrs().ParentIndex != end.Attrs().Index {
		return nil // somebody removed it: what was saved is the best there is
	}
	now, err := readSettings(link)
	if err != nil {
		return err
	}
	now.AltNames = d.Settings.AltNames
	d.Settings, d.Phase, d.SavedAt = now, PhaseRestoring, time.Now()
	return u.store.save(*d)
}

// afterReboot: the NIC is the host's, unless something gave it to a driver for
// user space again. It may also have been taken out of the machine.
func (u *Uplinks) afterReboot(d Description) error {
	if d.KeepsLink {
		return nil
	}
	if _, err := os.Stat(u.pci.device(d.PCI)); errors.Is(err, os.ErrNotExist) {
		u.log.WithFields(logrus.Fields{"uplink": d.Link, "pci": d.PCI}).Warn("The device of an uplink is not in the machine since its last start: there is nothing to restore")
		return nil
	}
	if now := u.pci.driver(d.PCI); now != "" && now != driverVFIO && now != driverUIO {
		return nil
	}
	return u.pci.bind(d.PCI, d.Driver)
}

// bringHome gives the link back to the host under its name. udev may rename the
// link of a driver that has just taken its device, at any moment (systemd.link(5)).
func (u *Uplinks) bringHome(d Description) error {
	const tries, pause = 20, 50 * time.Millisecond
	for n := 1; ; n++ {
		name, err := u.giveBack(d)
		if err != nil {
			return err
		}
		err = bringBack(name, d)
		if !errors.As(err, &netlink.LinkNotFoundError{}) || n == tries {
			return err
		}
		time.Sleep(pause)
	}
}

// giveBack returns the device to its driver and names the link that it has now.
func (u *Uplinks) giveBack(d Description) (string, error) {
	if d.KeepsLink {
		if err := unmute(d.Aside); err != nil {
			return "", err
		}
		for _, name := range []string{d.Aside, d.Link} {
			if l, err := findLink(name); err != nil {
				return "", err
			} else if l != nil {
				return name, nil
			}
		}
		return "", fmt.Errorf("neither %s nor %s is there", d.Aside, d.Link)
	}
	if _, err := os.Stat(u.pci.device(d.PCI)); err != nil {
		return "", fmt.Errorf("%w %s: %w", ErrPCI, d.PCI, err)
	}
	if err := u.pci.bind(d.PCI, d.Driver); err != nil {
		return "", err
	}
	return u.pci.waitLink(d.PCI)
}

// verify compares the link with what it should be.
func verify(d Description) error {
	link, err := netlink.LinkByName(d.Link)
	if err != nil {
		return fmt.Errorf("link %s: %w", d.Link, err)
	}
	now, err := readSettings(link)
	if err != nil {
		return err
	}
	want := d.Settings
	if now.MAC != want.MAC || now.MTU != want.MTU || now.Up != want.Up {
		return fmt.Errorf("link %s has MAC %s, MTU %d, up %t; it had %s, %d, %t", d.Link, now.MAC, now.MTU, now.Up, want.MAC, want.MTU, want.Up)
	}
	return nil
}

// Held describes the uplinks that VPP has, for manager.json.
func (u *Uplinks) Held() []node.DedicatedUplink {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []node.DedicatedUplink
	for _, d := range u.held {
		out = append(out, node.DedicatedUplink{Link: d.Link, Driver: DriverDPDK, Interface: Interface(d.Link), HostLink: d.HostLink})
	}
	return out
}
