package uplink

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// readSettings reads what the host has set on a link. Nothing is changed.
func readSettings(link netlink.Link) (Settings, error) {
	a := link.Attrs()
	s := Settings{
		Index: a.Index, MAC: a.HardwareAddr.String(), MTU: a.MTU, Up: a.Flags&net.FlagUp != 0,
		Promisc: a.Promisc != 0, AllMulti: a.Allmulti != 0, TxQueue: a.TxQLen,
		Alias: a.Alias, AltNames: slices.Clone(a.AltNames),
	}
	var err error
	if s.Sysctls, err = readSysctls(a.Name); err != nil {
		return s, err
	}
	if s.Addresses, err = addressesOf(a.Index); err != nil {
		return s, err
	}
	if s.Neighbours, err = neighboursOf(a.Index); err != nil {
		return s, err
	}
	if s.NextHops, err = nextHopsOf(a.Index); err != nil {
		return s, err
	}
	s.Routes, err = routesOf(a.Index)
	return s, err
}

// sysctlTrees are the kernel's settings that exist for each link.
var sysctlTrees = []string{"ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"}

// skipSysctls are not settings of their own: the MTU is set on the link, and
// the secret of stable addresses cannot be read before it is set.
var skipSysctls = []string{"ipv6/conf/mtu", "ipv6/conf/stable_secret"}

const procNet = "/proc/sys/net"

// readSysctls reads the link's kernel settings, by "family/tree/name".
func readSysctls(link string) (map[string]string, error) {
	out := map[string]string{}
	for _, tree := range sysctlTrees {
		dir := filepath.Join(procNet, tree, link)
		entries, err := os.ReadDir(dir)
		if os.IsNotExist(err) {
			continue // the kernel is without this family
		}
		if err != nil {
			return nil, fmt.Errorf("sysctl: %w", err)
		}
		for _, e := range entries {
			key := tree + "/" + e.Name()
			if info, err := e.Info(); err != nil || info.Mode()&0o200 == 0 || slices.Contains(skipSysctls, key) {
				continue
			}
			// Some can be written alone.
			if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil {
				out[key] = strings.TrimSpace(string(b))
			}
		}
	}
	return out, nil
}

// writeSysctls sets those of a link that differ.
func writeSysctls(link string, want map[string]string) error {
	have, err := readSysctls(link)
	if err != nil {
		return err
	}
	for _, key := range sortedKeys(want) {
		if v, ok := have[key]; !ok || v == want[key] {
			continue
		}
		if err := writeSysctl(link, key, want[key]); err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func writeSysctl(link, key, value string) error {
	path := filepath.Join(procNet, filepath.Dir(key), link, filepath.Base(key))
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("sysctl %s of %s = %s: %w", key, link, value, err)
	}
	return nil
}

// neighboursOf reads the entries that have an address, but those that the
// kernel knows by itself.
func neighboursOf(index int) ([]Neighbour, error) {
	var out []Neighbour
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		all, err := netlink.NeighList(index, family)
		if err != nil {
			return nil, fmt.Errorf("neighbours: %w", err)
		}
		const known = netlink.NUD_PERMANENT | netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE
		for _, n := range all {
			if n.State&known == 0 || len(n.HardwareAddr) != 6 || n.Flags&netlink.NTF_EXT_LEARNED != 0 {
				continue
			}
			out = append(out, Neighbour{
				IP: n.IP.String(), MAC: n.HardwareAddr.String(),
				Permanent: n.State&netlink.NUD_PERMANENT != 0, Router: n.Flags&netlink.NTF_ROUTER != 0,
			})
		}
	}
	return out, nil
}

func setNeighbours(index int, all []Neighbour) error {
	for _, n := range all {
		mac, err := net.ParseMAC(n.MAC)
		ip := net.ParseIP(n.IP)
		if err != nil || ip == nil {
			return fmt.Errorf("neighbour %s at %s: not an address", n.IP, n.MAC)
		}
		entry := &netlink.Neigh{LinkIndex: index, IP: ip, HardwareAddr: mac, State: netlink.NUD_STALE, Family: unix.AF_INET6}
		if ip.To4() != nil {
			entry.Family = unix.AF_INET
		}
		if n.Permanent {
			entry.State = netlink.NUD_PERMANENT
		}
		if n.Router {
			entry.Flags = netlink.NTF_ROUTER
		}
		if err := netlink.NeighSet(entry); err != nil {
			return fmt.Errorf("neighbour %s: %w", n.IP, err)
		}
	}
	return nil
}
