// Package node is what vpp-manager and the agent of one node tell each other.
// They share VPP's run directory and nothing else.
package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Version of the files' layout; it changes when a field changes meaning.
const Version = 1

// Files in VPP's run directory.
const (
	// ManagerFile holds a Manager. vpp-manager writes it, whole, whenever
	// something in it changes.
	ManagerFile = "manager.json"
	// ManagerSocket is vpp-manager's own unix socket (HTTP), for its commands.
	ManagerSocket = "manager.sock"
	// ShimFile is the XDP shim's object. The agent writes it; VPP loads it.
	ShimFile = "sidewinder-shim.o"
)

// State of VPP, as vpp-manager sees it.
type State string

// The states.
const (
	// StateStarting: VPP was started and does not answer yet.
	StateStarting State = "starting"
	// StateReady: VPP answers.
	StateReady State = "ready"
	// StateDraining: VPP answers still and is about to be stopped: traffic is
	// to go through the kernel, and stay there.
	StateDraining State = "draining"
	// StateWaiting: VPP ended, and is started again at NextStart.
	StateWaiting State = "waiting"
	// StateGivenUp: VPP died too often; it stays down until somebody asks for
	// a restart.
	StateGivenUp State = "given up"
	// StateStopped: vpp-manager has ended in order.
	StateStopped State = "stopped"
)

// Manager is what vpp-manager tells.
type Manager struct {
	Version int   `json:"version"`
	State   State `json:"state"`
	// PID of VPP; 0 while it does not run.
	PID int `json:"pid,omitempty"`
	// VPPVersion of the VPP that answered last.
	VPPVersion string `json:"vppVersion,omitempty"`
	// Since is when State began.
	Since time.Time `json:"since"`
	// Starts counts VPP's starts, Deaths those of its ends that nobody asked
	// for, since vpp-manager began.
	Starts int `json:"starts"`
	Deaths int `json:"deaths"`
	// LastDeath says how VPP ended the last time that nobody asked for it, in
	// words; LastDeathAt when.
	LastDeath   string    `json:"lastDeath,omitempty"`
	LastDeathAt time.Time `json:"lastDeathAt,omitzero"`
	// NextStart in StateWaiting.
	NextStart time.Time `json:"nextStart,omitzero"`
	// Uplinks are those that VPP has for itself.
	Uplinks []DedicatedUplink `json:"uplinks,omitempty"`
}

// DedicatedUplink is a NIC that VPP drives itself, while the host keeps its
// addresses on a veth of the same name behind VPP.
type DedicatedUplink struct {
	// Link is the name that the NIC had, and that the host's veth has now.
	Link string `json:"link"`
	// Driver is VPP's: "dpdk".
	Driver string `json:"driver"`
	// Interface is VPP's name of the NIC.
	Interface string `json:"interface"`
	// HostLink is the other end of the host's veth, which VPP opens by
	// af_packet.
	HostLink string `json:"hostLink"`
}

// ReadManager reads the manager's file in a run directory. A file that is
// absent is os.ErrNotExist: no manager has been there.
func ReadManager(runDir string) (Manager, error) {
	path := filepath.Join(runDir, ManagerFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		return Manager{}, err
	}
	var m Manager
	if err := json.Unmarshal(raw, &m); err != nil {
		return Manager{}, fmt.Errorf("%s: %w", path, err)
	}
	if m.Version != Version {
		return Manager{}, fmt.Errorf("%s: version: %d, this program knows %d: run vpp-manager and agent of one release", path, m.Version, Version)
	}
	return m, nil
}

// Write stores the file in a run directory, whole or not at all.
func (m Manager) Write(runDir string) error {
	m.Version = Version
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(runDir, ManagerFile), append(raw, '\n'), 0o644)
}

// WriteFile replaces a file, whole or not at all.
func WriteFile(path string, content []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
