package compile_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/compile"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/podspec"
)

// annotated is the cluster of two with annotations on the pod here.
func annotated(annotations map[string]string) cluster.Snapshot {
	s := two()
	e := s.Endpoints["c1/eth0"]
	e.IfName, e.Netns = "eth0", "/var/run/netns/cni-1"
	s.Endpoints["c1/eth0"] = e
	s.Pods["default/web"] = cluster.Pod{Namespace: "default", Name: "web", Node: "a", IPs: e.IPs, Annotations: annotations}
	return s
}

func TestAPodChoosesHowItIsReceivedFrom(t *testing.T) {
	for name, c := range map[string]struct {
		node dataplane.Rx
		text string
		want dataplane.Rx
	}{
		"nothing":            {dataplane.Rx{}, `{}`, dataplane.Rx{}},
		"the node's default": {dataplane.Rx{Mode: dataplane.RxPolling}, `{"eth0": {"rxqsz": 512}}`, dataplane.Rx{Mode: dataplane.RxPolling, Ring: 512}},
		"interrupt comes before the node's, in the default's form": {
			dataplane.Rx{Mode: dataplane.RxPolling}, `{"eth0": {"rxMode": "interrupt"}}`, dataplane.Rx{}},
		"all of it": {dataplane.Rx{}, `{"eth0": {"rx": 1, "tx": 2, "rxqsz": 256, "txqsz": 512, "rxMode": "adaptive", "isl3": true}}`,
			dataplane.Rx{Mode: dataplane.RxAdaptive, Ring: 256, TxRing: 512}},
	} {
		t.Run(name, func(t *testing.T) {
			s := annotated(map[string]string{podspec.AnnotationInterfaces: c.text})
			s.PodRx = c.node
			res := compile.Compile(s, compile.Target{})
			require.Empty(t, res.Problems)
			require.Equal(t, c.want, res.State.Interfaces["swc1"].Rx)
			res = compile.Compile(s, compile.Target{Kernel: true})
			require.Empty(t, res.State.Interfaces["swc1"].Rx)
		})
	}
}

func TestAPodsMemif(t *testing.T) {
	s := annotated(map[string]string{
		podspec.AnnotationMemifPorts: "udp:5000,tcp:4444-20000",
		podspec.AnnotationMemif:      `{"rxMode": "polling", "rx": 4}`,
	})
	plain := two()
	want := compile.Compile(plain, compile.Target{}).State
	want.Interfaces["swc1-m"] = dataplane.Interface{
		Role: dataplane.RoleMemif, MTU: 1460, MAC: dataplane.MAC{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}, Rx: dataplane.Rx{Mode: dataplane.RxPolling},
		Memif: dataplane.Memif{
			Netns: "/var/run/netns/cni-1", Socket: "vpp/memif-eth0", PeerMAC: dataplane.MAC{2, 0, 0, 0, 0, 1},
			IPs: "10.244.1.5,fd10:244:1::5", Ports: "tcp:4444-20000,udp:5000", Veth: "swc1",
		},
	}
	res := compile.Compile(s, compile.Target{})
	require.Empty(t, res.Problems)
	require.Equal(t, want.Text(), res.State.Text())

	kernel := compile.Compile(s, compile.Target{Kernel: true})
	require.Equal(t, compile.Compile(plain, compile.Target{Kernel: true}).State.Text(), kernel.State.Text())
	require.Empty(t, kernel.Problems)

	s.Pods["default/web"].Annotations[podspec.AnnotationMemif] = `{"isl3": true}`
	m := compile.Compile(s, compile.Target{}).State.Interfaces["swc1-m"]
	require.True(t, m.Memif.L3)
	require.True(t, m.MAC.IsZero() && m.Memif.PeerMAC.IsZero())
}

// An address that another pod holds stays with that one, on the memif as well.
func TestAMemifTakesNobodysAddress(t *testing.T) {
	s := annotated(map[string]string{podspec.AnnotationMemifPorts: "udp:5000"})
	s.Endpoints["c0/eth0"] = cluster.Endpoint{
		ID: "c0/eth0", Namespace: "default", Name: "first", IfName: "eth0", HostInterface: "swc0", MTU: 1460, WholeChecksums: true,
		IPs: []netip.Addr{netip.MustParseAddr("10.244.1.5")},
	}
	require.Equal(t, "fd10:244:1::5", compile.Compile(s, compile.Target{}).State.Interfaces["swc1-m"].Memif.IPs)
	first := s.Endpoints["c0/eth0"]
	first.IPs = s.Endpoints["c1/eth0"].IPs
	s.Endpoints["c0/eth0"] = first
	require.NotContains(t, compile.Compile(s, compile.Target{}).State.Interfaces, dataplane.InterfaceKey("swc1-m"))
}

// A pod has one memif, whatever the number of its interfaces.
func TestOneMemifForAPod(t *testing.T) {
	s := annotated(map[string]string{podspec.AnnotationMemifPorts: "udp:5000"})
	s.Endpoints["c1/net1"] = cluster.Endpoint{
		ID: "c1/net1", Namespace: "default", Name: "web", IfName: "net1", HostInterface: "swnet1", MTU: 1460, WholeChecksums: true,
		IPs: []netip.Addr{netip.MustParseAddr("10.244.1.6")},
	}
	st := compile.Compile(s, compile.Target{}).State
	require.Contains(t, st.Interfaces, dataplane.InterfaceKey("swc1-m"))
	require.NotContains(t, st.Interfaces, dataplane.InterfaceKey("swnet1-m"))
}

// More queues than the veth has would keep VPP from using it at all.
func TestAVethHasOneQueue(t *testing.T) {
	res := compile.Compile(annotated(map[string]string{podspec.AnnotationInterfaces: `{"eth0": {"rx": 4, "rxMode": "polling"}}`}), compile.Target{})
	require.Equal(t, dataplane.Rx{Mode: dataplane.RxPolling}, res.State.Interfaces["swc1"].Rx)
	require.Len(t, res.Problems, 1)
	require.Equal(t, "Pod/default/web: metadata.annotations[cni.projectcalico.org/vppInterfacesSpec].eth0.rx: "+
		"a pod's veth has 1 queue, not 4; the default is used (leave it out)", res.Problems[0].String())
}

// A bad annotation is told, and the pod is as it would be without.
func TestABadAnnotationKeepsNothingFromWorking(t *testing.T) {
	s := annotated(map[string]string{
		podspec.AnnotationInterfaces: `{"eth0": {"rx": 99}, "eth7": {}}`,
		podspec.AnnotationMemifPorts: "sctp:5",
	})
	res := compile.Compile(s, compile.Target{})
	require.Equal(t, compile.Compile(two(), compile.Target{}).State.Text(), res.State.Text())
	var texts []string
	for _, p := range res.Problems {
		texts = append(texts, p.String())
	}
	require.Equal(t, []string{
		`Pod/default/web: metadata.annotations[cni.projectcalico.org/vppExtraMemifPorts]: "sctp:5": protocol "sctp" is neither tcp nor udp; the default is used (write protocols and ports, such as tcp:4444-20000,udp:5000)`,
		`Pod/default/web: metadata.annotations[cni.projectcalico.org/vppInterfacesSpec].eth0.rx: 99 is not a whole number from 0 to 16; the default is used`,
		`Pod/default/web: metadata.annotations[cni.projectcalico.org/vppInterfacesSpec].eth7: the pod has no interface eth7 on this node (name an interface that the pod has, such as eth0)`,
	}, texts)
}
