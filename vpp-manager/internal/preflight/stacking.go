package preflight

import (
	"path/filepath"
	"slices"
	"strings"
)

func uplinkStacking(_ input, l Link) Finding {
	if l.Index == 0 || l.Held {
		return ok("not an interface of the kernel's")
	}
	switch l.MasterKind {
	case "":
	case "bond", "team", "bridge":
		return failure("name "+l.Master+" as the uplink", "it is a member of the %s %s, which has the packets", l.MasterKind, l.Master)
	case "vrf":
		return warning("let the uplink be in the main table", "it is in the VRF %s, and Sidewinder uses the main table", l.Master)
	default:
		return warning("name "+l.Master+" if that has the addresses", "it is a member of %s (%s)", l.Master, l.MasterKind)
	}
	if l.Use == DPDK && !l.Virtual && l.Kind != "device" {
		return failure("name the NIC, or --driver af_xdp or af_packet", "a %s is not a NIC that DPDK could drive", l.Kind)
	}
	if l.Use != AFXDP {
		return ok("a %s of its own", l.Kind)
	}
	switch l.Kind {
	case "bond":
		return warning("try it with your traffic, or --driver af_packet; Linux 5.15 or later for native XDP on a bond",
			"a bond: XDP runs on its members, and kernels differ in whether they deliver to a socket of the bond")
	case "vlan", "macvlan", "ipvlan", "bridge", "team":
		return warning("nothing if the speed suffices; otherwise use the interface below, or --driver af_packet", "a %s, which has generic XDP only", l.Kind)
	}
	return ok("a %s of its own", l.Kind)
}

// shimName is what VPP's and the agent's program is called.
const shimName = "sidewinder"

// isOurs: the program is the shim, or the one that VPP's af_xdp brings when it is
// given none.
func (p Program) isOurs() bool {
	return strings.HasPrefix(p.Name, shimName) || p.Name == "xsk_def_prog"
}

func (p Program) String() string {
	s := p.Mode + " program " + p.Name
	if p.Name == "" {
		s = p.Mode + " program without a name"
	}
	return s
}

func uplinkProgram(_ input, l Link) Finding {
	switch {
	case l.XDP == nil:
		return ok("none")
	case l.XDP.isOurs():
		return ok("%s, ours: VPP replaces it", l.XDP)
	}
	return failure("let its owner take it off, or give it another interface (Cilium: loadBalancer.acceleration=disabled, Calico: bpfEnabled=false and xdpEnabled=false), or --driver af_packet; a leftover goes with `ip link set "+l.Name+" xdp off`",
		"%s of somebody else: VPP would take it off", l.XDP)
}

func otherPrograms(in input) Finding {
	all, err := in.Links()
	if err != nil {
		return skipped("the interfaces cannot be listed: %v", err)
	}
	uplinks, _ := in.uplinks()
	var found []string
	for _, l := range all {
		isUplink := slices.ContainsFunc(uplinks, func(u Link) bool { return u.Name == l.Name })
		if l.XDP != nil && !l.XDP.isOurs() && !isUplink {
			found = append(found, l.Name+" ("+l.XDP.Name+")")
		}
	}
	if found != nil {
		return ok("on %s; they stay: only uplinks and pods of this node get the shim", strings.Join(found, ", "))
	}
	return ok("none")
}

func uplinkManager(in input, l Link) Finding {
	if l.Index == 0 {
		return ok("not an interface of the kernel's")
	}
	index := itoa(l.Index)
	if state := in.keyValue("run/systemd/netif/links/"+index, "ADMIN_STATE"); state != "" && state != "unmanaged" {
		if l.Use == DPDK {
			return warning("[Link] Unmanaged=yes for it, in a .network file", "systemd-networkd, which would configure it while VPP has it")
		}
		if !in.networkdLeavesRoutes() {
			return warning("ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no (and ManageForeignNextHops=no where it is known) in [Network] of /etc/systemd/networkd.conf, then restart it",
				"systemd-networkd (%s), which removes the routes of others when it restarts", state)
		}
		return ok("systemd-networkd (%s), which leaves the routes of others alone", state)
	}
	if in.keyValue("run/NetworkManager/devices/"+index, "managed") == "true" || in.exists("run/NetworkManager/devices/"+index) && in.keyValue("run/NetworkManager/devices/"+index, "managed") == "" {
		if l.Use == DPDK {
			return warning("unmanaged-devices=interface-name:"+l.Name+" in [keyfile] of a file in /etc/NetworkManager/conf.d", "NetworkManager, which would configure it while VPP has it")
		}
		return ok("NetworkManager, which keeps the uplink; let it ignore the pods' interfaces, unmanaged-devices=interface-name:sw*")
	}
	return ok("neither systemd-networkd nor NetworkManager")
}

// keyValue reads KEY=value from a file of such lines.
func (m Machine) keyValue(file, key string) string {
	for line := range strings.Lines(m.text(file)) {
		if k, v, found := strings.Cut(strings.TrimSpace(line), "="); found && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// networkdLeavesRoutes: networkd.conf or a file beside it says so; the last one
// holds (networkd.conf(5)).
func (m Machine) networkdLeavesRoutes() bool {
	files := []string{"etc/systemd/networkd.conf"}
	drop := append(m.glob("usr/lib/systemd/networkd.conf.d/*.conf"), m.glob("etc/systemd/networkd.conf.d/*.conf")...)
	slices.SortStableFunc(drop, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	leaves := false
	for _, f := range append(files, drop...) {
		if v := m.keyValue(f, "ManageForeignRoutes"); v != "" {
			v = strings.ToLower(v)
			leaves = v == "no" || v == "false" || v == "0" || v == "off"
		}
	}
	return leaves
}

func ipv6(in input) []Finding {
	const conf = "proc/sys/net/ipv6/conf"
	if !in.exists(conf) {
		return []Finding{failure("take ipv6.disable=1 from the kernel's command line", "the kernel has no IPv6")}
	}
	var out []Finding
	links, _ := in.uplinks()
	on := false
	for _, l := range links {
		name := sysctlName(l.Name)
		switch off := in.text(conf + "/" + name + "/disable_ipv6"); {
		case l.Index != 0 && off == "1":
			out = append(out, failure("sysctl -w net/ipv6/conf/"+name+"/disable_ipv6=0, and take it out of /etc/sysctl.d", "IPv6 is off on it").of(l.Name))
		case off == "0":
			on = true
		}
	}
	// The kernel looks at each interface's own setting; writing to that of all
	// sets them.
	if in.text(conf+"/all/disable_ipv6") == "1" {
		const fix = "sysctl -w net.ipv6.conf.all.disable_ipv6=0, and take it out of /etc/sysctl.d"
		if !on {
			return append(out, failure(fix, "net.ipv6.conf.all.disable_ipv6 is 1"))
		}
		out = append(out, warning(fix, "net.ipv6.conf.all.disable_ipv6 is 1, and IPv6 was turned on again on single interfaces only"))
	}
	if in.text(conf+"/default/disable_ipv6") == "1" {
		out = append(out, warning("sysctl -w net.ipv6.conf.default.disable_ipv6=0", "net.ipv6.conf.default.disable_ipv6 is 1: new interfaces, as those of pods, have none"))
	}
	if out == nil {
		out = append(out, ok("on"))
	}
	return out
}

// sysctlName is an interface's name as a folder of /proc/sys.
func sysctlName(link string) string { return strings.ReplaceAll(link, "/", ".") }

func forwarding(in input) Finding {
	v4, v6 := in.text("proc/sys/net/ipv4/ip_forward"), in.text("proc/sys/net/ipv6/conf/all/forwarding")
	if v4 == "1" && v6 == "1" {
		return ok("on for IPv4 and IPv6")
	}
	if _, _, readOnly, err := in.Space(in.path("proc/sys")); err == nil && readOnly {
		return failure("mount /proc/sys writable (a privileged container), or sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 on the host",
			"off (IPv4 %s, IPv6 %s), and /proc/sys is read-only, so that the agent cannot turn it on", v4, v6)
	}
	return ok("off (IPv4 %s, IPv6 %s); the agent turns it on", v4, v6)
}

// rpFilter: the kernel takes the larger of the interface's setting and that of
// all (Documentation/networking/ip-sysctl.rst).
func rpFilter(in input, l Link) Finding {
	mode := 0
	for _, name := range []string{"all", sysctlName(l.Name)} {
		n, _ := in.number("proc/sys/net/ipv4/conf/" + name + "/rp_filter")
		mode = max(mode, n)
	}
	links, _ := in.uplinks()
	switch {
	case mode == 1 && len(links) > 1:
		return warning("sysctl -w net.ipv4.conf.all.rp_filter=2 (loose), or 0", "strict: the kernel drops decapsulated IPv4 that came by another uplink than the way back")
	case mode == 1:
		return ok("strict, which one uplink passes")
	case mode == 2:
		return ok("loose")
	}
	return ok("off")
}
