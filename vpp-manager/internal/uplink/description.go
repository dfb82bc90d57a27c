package uplink

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// descriptionVersion changes when a field of Description changes meaning.
const descriptionVersion = 1

// Phase is how far the taking of an uplink got.
type Phase string

// The phases, in their order.
const (
	// PhaseTaking: the host may or may not have its NIC; its settings are in
	// the description.
	PhaseTaking Phase = "taking"
	// PhaseTaken: the host's settings are on the veth, which is now where they
	// change.
	PhaseTaken Phase = "taken"
	// PhaseRestoring: the description has the settings as they were on the
	// veth last.
	PhaseRestoring Phase = "restoring"
)

// Description is what brings an uplink back.
type Description struct {
	Version int   `json:"version"`
	Phase   Phase `json:"phase"`
	// BootID of the kernel: after a reboot the NIC is the host's anyway.
	BootID  string    `json:"bootID"`
	SavedAt time.Time `json:"savedAt"`
	// Link is the host's name of the uplink.
	Link string `json:"link"`
	// PCI and Driver of a device that was unbound; KeepsLink: the kernel's
	// link stays while VPP drives the device, and is put aside.
	PCI       string `json:"pci,omitempty"`
	Driver    string `json:"driver,omitempty"`
	KeepsLink bool   `json:"keepsLink,omitempty"`
	VDev      string `json:"vdev,omitempty"`
	// Aside is the link's name while VPP has it, if KeepsLink.
	Aside string `json:"aside,omitempty"`
	// HostLink is VPP's end of the host's veth.
	HostLink string   `json:"hostLink"`
	Settings Settings `json:"settings"`
}

// Settings are what the host has set on a link.
type Settings struct {
	// Index of the link that they were read from: routes name it.
	Index      int               `json:"index"`
	MAC        string            `json:"mac"`
	MTU        int               `json:"mtu"`
	Up         bool              `json:"up"`
	Promisc    bool              `json:"promisc,omitempty"`
	AllMulti   bool              `json:"allMulti,omitempty"`
	TxQueue    int               `json:"txQueue"`
	Alias      string            `json:"alias,omitempty"`
	AltNames   []string          `json:"altNames,omitempty"`
	Sysctls    map[string]string `json:"sysctls"`
	Addresses  []Object          `json:"addresses"`
	Neighbours []Neighbour       `json:"neighbours"`
	NextHops   []Object          `json:"nextHops,omitempty"`
	Routes     []Object          `json:"routes"`
}

// Object is a netlink object as the kernel told it: all of its attributes come
// back, known here or not.
type Object struct {
	// Text is for people.
	Text string `json:"text"`
	// Raw is the message's payload (rtnetlink(7)).
	Raw []byte `json:"raw"`
}

// Neighbour is an entry of the host's neighbour tables.
type Neighbour struct {
	IP        string `json:"ip"`
	MAC       string `json:"mac"`
	Permanent bool   `json:"permanent,omitempty"`
	Router    bool   `json:"router,omitempty"`
}

// DefaultDir holds the descriptions. It must outlive the run directory, which
// is gone after a reboot, as are the changes that the descriptions undo.
const DefaultDir = "/var/lib/sidewinder/uplinks"

// store keeps descriptions in a folder, one file for each uplink.
type store struct{ dir string }

// newStore has a folder for each run directory, named as systemd-escape(1) does:
// /run/a-b and /run/a/b are of two managers.
func newStore(dir, runDir string) store {
	name := strings.NewReplacer("-", `\x2d`, `\`, `\x5c`, "/", "-").Replace(strings.Trim(filepath.Clean(runDir), "/"))
	return store{filepath.Join(dir, name)}
}

func (s store) path(link string) string { return filepath.Join(s.dir, link+".json") }

// save writes a description, whole or not at all, and returns once it is on
// the disk.
func (s store) save(d Description) error {
	d.Version, d.SavedAt = descriptionVersion, time.Now()
	raw, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("uplink %s: description: %w", d.Link, err)
	}
	if err := writeSynced(s.path(d.Link), append(raw, '\n')); err != nil {
		return fmt.Errorf("uplink %s: description: %w", d.Link, err)
	}
	return nil
}

func writeSynced(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// load reads the description of an uplink; one that was never written is
// os.ErrNotExist.
func (s store) load(link string) (Description, error) {
	raw, err := os.ReadFile(s.path(link))
	if err != nil {
		return Description{}, err
	}
	var d Description
	if err := json.Unmarshal(raw, &d); err != nil {
		return Description{}, fmt.Errorf("%s: %w", s.path(link), err)
	}
	if d.Version != descriptionVersion {
		return Description{}, fmt.Errorf("%s: version: %d, this program knows %d: restore with the release that wrote it", s.path(link), d.Version, descriptionVersion)
	}
	if d.Link != link {
		return Description{}, fmt.Errorf("%s: link: %q, the file's name says %q", s.path(link), d.Link, link)
	}
	return d, nil
}

// list names the uplinks that have a description, sorted.
func (s store) list() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("uplink descriptions: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (s store) remove(link string) error {
	if err := os.Remove(s.path(link)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("uplink %s: description: %w", link, err)
	}
	return syncDir(s.dir)
}
