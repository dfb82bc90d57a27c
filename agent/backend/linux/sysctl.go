package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// Sysctls, as paths below /proc/sys/net. They must be used on the backend's
// thread: most are per namespace.
const (
	sysctlFlowLabel = "ipv6/seg6_flowlabel"
	sysctlVRFStrict = "vrf/strict_mode"
	// sysctlHooks leads packets through netfilter before encapsulation and after
	// decapsulation, without which the kernel cannot translate the addresses of
	// a connection that crosses the overlay (services, masquerade). It is there
	// when connection tracking is, belongs to the whole machine, and cannot be
	// turned off again.
	sysctlHooks = "netfilter/nf_hooks_lwtunnel"
)

const sysctlRoot = "/proc/sys/net/"

func conf4(link, name string) string { return "ipv4/conf/" + link + "/" + name }
func conf6(link, name string) string { return "ipv6/conf/" + link + "/" + name }

// readSysctl reads a number. A sysctl that is missing is ErrUnsupported, or
// ErrNotReady when it is that of an interface.
func readSysctl(name string) (int, error) {
	b, err := os.ReadFile(sysctlRoot + name)
	if err != nil {
		return 0, sysctlError(name, err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("sysctl net/%s: %w", name, err)
	}
	return v, nil
}

// writeSysctl sets a number, unless it is that already: writing has effects of
// its own in the kernel, and /proc/sys may be read-only on a host that was
// prepared by others.
func writeSysctl(name string, v int) error {
	is, err := readSysctl(name)
	if err != nil || is == v {
		return err
	}
	f, err := os.OpenFile(sysctlRoot+name, os.O_WRONLY, 0)
	if err != nil {
		return sysctlError(name, err)
	}
	_, err = f.WriteString(strconv.Itoa(v))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return sysctlError(name, err)
	}
	return nil
}

func sysctlError(name string, err error) error {
	err = fmt.Errorf("sysctl net/%s: %w", name, err)
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.Contains(name, "/conf/"):
		return fmt.Errorf("%w: %w", dataplane.ErrNotReady, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", dataplane.ErrUnsupported, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w (/proc/sys must be writable for the agent, or the value be set on the host)", err)
	}
	return err
}

// hookTunnels turns on sysctlHooks. At every reading, because connection tracking
// may come at any time (with kube-proxy's first rule). Everything but the
// translation of addresses works without.
func (b *Backend) hookTunnels() {
	err := writeSysctl(sysctlHooks, 1)
	if err == nil || errors.Is(err, fs.ErrNotExist) || b.hooksRefused {
		return
	}
	b.hooksRefused = true
	b.log.WithError(err).Warn("services and masquerade do not work across the overlay: set it on the host")
}

// relaxReversePath makes sure that the strict reverse path filter (RFC 3704
// §2.2) does not apply to the link: what arrives there after decapsulation comes
// from addresses that are routed into a policy, not back to the link. The kernel
// takes the larger of the link's value and that of "all".
func relaxReversePath(link string) error {
	all, err := readSysctl(conf4("all", "rp_filter"))
	if err != nil {
		return err
	}
	own, err := readSysctl(conf4(link, "rp_filter"))
	if err != nil {
		return err
	}
	if max(all, own) != 1 {
		return nil
	}
	want := 0
	if all == 1 {
		want = 2
	}
	return writeSysctl(conf4(link, "rp_filter"), want)
}
