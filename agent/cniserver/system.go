package cniserver

import (
	"errors"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
)

// System answers what the server must know of the machine.
type System interface {
	// LinkExists looks for an interface in the agent's network namespace.
	LinkExists(name string) (bool, error)
	// NetnsExists looks for the path of a network namespace.
	NetnsExists(path string) bool
	// BootID differs after every start of the machine; empty when unknown.
	BootID() string
}

type realSystem struct{}

func (realSystem) LinkExists(name string) (bool, error) {
	_, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return false, nil
	}
	return err == nil, err
}

func (realSystem) NetnsExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (realSystem) BootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}
