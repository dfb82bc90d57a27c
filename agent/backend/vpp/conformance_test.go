package vpp

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/test/conformance"
)

func TestConformance(t *testing.T) {
	for _, drivers := range []Options{
		withShim(t),
		{UplinkDriver: DriverAFPacket, PodDriver: DriverAFXDP, Shim: shimFile(t)},
		{UplinkDriver: DriverAFPacket, PodDriver: DriverAFPacket},
		{UplinkDriver: DriverAFXDP, PodDriver: DriverAFXDP},
		{UplinkDriver: DriverDPDK, PodDriver: DriverAFXDP},
	} {
		name := drivers.UplinkDriver + "+" + drivers.PodDriver
		if drivers.Shim != "" {
			name += "+shim"
		}
		t.Run(name, func(t *testing.T) {
			needVPP(t)
			conformance.Run(t, conformance.Harness{New: func(t *testing.T) *conformance.Bench { return newBench(t, drivers) }})
		})
	}
}

func newBench(t *testing.T, o Options) *conformance.Bench {
	inNetns(t)
	addVeth(t, "uplink0", "fabric0")
	m := startVPP(t, dedicatedFlags(t, o, "uplink0")...)
	pods := []string{"sw00000000001", "sw00000000002"}
	for _, p := range pods {
		addVeth(t, p, "p"+p[2:])
	}
	// As the agent has it: its locator may change within the block.
	o.Locator = netip.PrefixFrom(conformance.Locator.Addr(), 32).Masked()
	// Objects of others, one of each kind that can be mistaken for ours, and a
	// route to a prefix that the suite uses too.
	plant := []string{
		"create loopback interface instance 7",
		"set interface state loop7 up",
		"set interface ip address loop7 192.0.2.1/24",
		"set ip neighbor static loop7 192.0.2.9 02:00:00:00:00:09",
		"ip route add 10.244.9.0/24 via 192.0.2.9 loop7",
		"ip route add 198.51.100.0/24 via 192.0.2.9 loop7",
		"sr localsid address fcbb:bb01:9:1:: behavior end",
		"sr policy add bsid fcbb:bb01:9:b:: next fcbb:bb01:8:: encap",
		"sr steer l3 203.0.113.0/24 via bsid fcbb:bb01:9:b::",
	}
	return &conformance.Bench{
		Backend: newBackend(t, m, o),
		Reopen:  func(t *testing.T) dataplane.Backend { return newBackend(t, m, o) },
		Uplink:  "uplink0",
		Gateway: netip.MustParseAddr("fd53:77::100"),
		Pods:    pods,
		MakeLink: func(t *testing.T, name string) {
			addVeth(t, name, "late")
		},
		Disconnect: func(t *testing.T) func() {
			m.stop(t)
			return func() { m.start(t) }
		},
		PlantForeign: func(t *testing.T) {
			for _, c := range plant {
				m.cli(t, c)
			}
			addForeignKernelRoute(t)
		},
		CheckForeign: func(t *testing.T) {
			require.Contains(t, m.cli(t, "show interface addr"), "192.0.2.1/24")
			require.Contains(t, m.cli(t, "show ip neighbors"), "192.0.2.9")
			require.Regexp(t, `(?s)198.51.100.0/24 fib.*192.0.2.9 loop7`, m.cli(t, "show ip fib 198.51.100.0/24"))
			require.Regexp(t, `(?s)10.244.9.0/24 fib.*CLI refs`, m.cli(t, "show ip fib 10.244.9.0/24"))
			require.Contains(t, m.cli(t, "show sr localsids"), "fcbb:bb01:9:1::")
			require.Contains(t, m.cli(t, "show sr policies"), "fcbb:bb01:9:b::")
			require.Contains(t, m.cli(t, "show sr steering-policies"), "203.0.113.0/24")
			requireForeignKernelRoute(t)
		},
	}
}
