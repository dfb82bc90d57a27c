// Package ns makes and enters network namespaces by name. It is to be used
// inside a lab's process tree, where /run/netns belongs to the lab alone.
package ns

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const dir = "/run/netns"

// Path is the file by which a namespace is known to ip(8) and to CNI plugins.
func Path(name string) string { return filepath.Join(dir, name) }

// Create makes a namespace with its loopback up.
func Create(name string) error {
	errs := make(chan error, 1)
	go func() {
		// Never unlocked: the thread is in another namespace and ends with
		// this goroutine.
		runtime.LockOSThread()
		h, err := netns.NewNamed(name)
		if err != nil {
			errs <- fmt.Errorf("network namespace %s: %w", name, err)
			return
		}
		defer h.Close()
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			err = fmt.Errorf("network namespace %s: loopback: %w", name, err)
		}
		errs <- err
	}()
	return <-errs
}

// Delete removes a namespace's name. The namespace goes when nothing is in it.
func Delete(name string) error {
	if err := netns.DeleteNamed(name); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("network namespace %s: %w", name, err)
	}
	return nil
}

// Do calls fn on a thread that is in the named namespace. Sockets and netlink
// handles made in it stay in that namespace for good.
func Do(name string, fn func() error) error {
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			errs <- err
			return
		}
		defer home.Close()
		h, err := netns.GetFromName(name)
		if err != nil {
			errs <- fmt.Errorf("network namespace %s: %w", name, err)
			return
		}
		defer h.Close()
		if err := netns.Set(h); err != nil {
			errs <- fmt.Errorf("enter network namespace %s: %w", name, err)
			return
		}
		defer func() {
			// A thread that cannot go home is left locked and so ends here.
			if netns.Set(home) == nil {
				runtime.UnlockOSThread()
			}
		}()
		errs <- fn()
	}()
	return <-errs
}

// Handle opens a netlink socket in the named namespace; the caller closes it.
func Handle(name string) (*netlink.Handle, error) {
	h, err := netns.GetFromName(name)
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", name, err)
	}
	defer h.Close()
	nl, err := netlink.NewHandleAt(h)
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: netlink: %w", name, err)
	}
	return nl, nil
}

// Sysctl sets kernel variables in the named namespace. Keys are in the slash
// form, relative to /proc/sys; they are set in the order given.
func Sysctl(name string, settings ...[2]string) error {
	return Do(name, func() error {
		for _, s := range settings {
			path := filepath.Join("/proc/sys", s[0])
			if err := os.WriteFile(path, []byte(s[1]), 0o644); err != nil {
				return fmt.Errorf("%s: set %s to %s: %w", name, strings.ReplaceAll(s[0], "/", "."), s[1], err)
			}
		}
		return nil
	})
}
