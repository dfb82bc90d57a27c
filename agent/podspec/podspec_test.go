package podspec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/podspec"
)

const (
	ifaces = podspec.AnnotationInterfaces
	ports  = podspec.AnnotationMemifPorts
	memif  = podspec.AnnotationMemif
)

func texts(errs []*podspec.Error) []string {
	var out []string
	for _, e := range errs {
		out = append(out, e.Error())
	}
	return out
}

func TestParse(t *testing.T) {
	type m = map[string]string
	type specs = map[string]podspec.Interface
	at := func(rest string) string { return "metadata.annotations[" + rest }
	for name, c := range map[string]struct {
		in   m
		want podspec.Spec
		errs []string
	}{
		"nothing": {in: nil},
		"the example of the manual": {
			in: m{ifaces: `{"eth0": {"rx": 1, "tx": 2, "rxqsz": 1024, "txqsz": 512, "isl3": true, "rxMode": "adaptive"}}`},
			want: podspec.Spec{Interfaces: specs{"eth0": {
				Rx: 1, Tx: 2, RxRing: 1024, TxRing: 512, L3: true, RxMode: dataplane.RxAdaptive}}},
		},
		"defaults written out": {
			in:   m{ifaces: `{"eth0": {"rx": 0, "tx": null, "rxqsz": 0, "txqsz": null, "isl3": null, "rxMode": "default"}, "net1": {}}`},
			want: podspec.Spec{Interfaces: specs{"eth0": {}, "net1": {}}},
		},
		"ports": {
			in: m{ports: "udp:5000, tcp:4444-20000,udp:5001-5010,tcp:1"},
			want: podspec.Spec{Ports: []dataplane.PortRange{
				{Protocol: 6, First: 1, Last: 1}, {Protocol: 6, First: 4444, Last: 20000}, {Protocol: 17, First: 5000, Last: 5010}}},
		},
		"the memif by its name": {
			in:   m{ports: "udp:1", ifaces: `{"memif0": {"isl3": true, "rxMode": "polling"}}`},
			want: podspec.Spec{Interfaces: specs{}, Ports: udp(1), Memif: podspec.Interface{L3: true, RxMode: dataplane.RxPolling}},
		},
		"the memif's own": {
			in:   m{ports: "udp:1", memif: `{"rxqsz": 256}`, ifaces: `{"eth0": {"rxMode": "polling"}}`},
			want: podspec.Spec{Interfaces: specs{"eth0": {RxMode: dataplane.RxPolling}}, Ports: udp(1), Memif: podspec.Interface{RxRing: 256}},
		},
		"the memif twice": {
			in:   m{ports: "udp:1", memif: `{"isl3": true}`, ifaces: `{"memif0": {}}`},
			want: podspec.Spec{Interfaces: specs{}, Ports: udp(1), Memif: podspec.Interface{L3: true}},
			errs: []string{at(ifaces + "].memif0: " + memif + " says the same (remove one of the two)")},
		},
		"two memifs": {
			in:   m{ports: "udp:1", ifaces: `{"memif1": {}, "memif0": {"isl3": true}}`},
			want: podspec.Spec{Interfaces: specs{}, Ports: udp(1), Memif: podspec.Interface{L3: true}},
			errs: []string{at(ifaces + "].memif1: a pod has one memif, and memif0 is taken for it (remove it)")},
		},
		"a memif without ports": {
			in:   m{ifaces: `{"memif0": {}}`, memif: `{}`},
			want: podspec.Spec{Interfaces: specs{}},
			errs: []string{
				at(memif + "]: the pod has no memif (say with " + ports + " which ports go to the memif)"),
				at(ifaces + "].memif0: the pod has no memif (say with " + ports + " which ports go to the memif)")},
		},
		"one bad interface leaves the others": {
			in:   m{ifaces: `{"eth0": {"rx": 17, "speed": 1, "rxqsz": 1000}, "net1": {"rx": 2}}`},
			want: podspec.Spec{Interfaces: specs{"net1": {Rx: 2}}},
			errs: []string{
				at(ifaces + "].eth0.rx: 17 is not a whole number from 0 to 16"),
				at(ifaces + "].eth0.speed: is not known (use rx, tx, rxqsz, txqsz, isl3 or rxMode)"),
				at(ifaces + "].eth0.rxqsz: 1000 is not a power of two from 256 to 1024")},
		},
		"bad values": {
			in: m{ifaces: `{"eth0": {"rx": "1", "tx": -1, "rxqsz": 2048, "txqsz": 1e3, "isl3": "yes", "rxMode": "fast"}, "e0": {"rxMode": 1}, "e1": {"Rx": 1}}`},
			errs: []string{
				at(ifaces + `].eth0.rx: "1" is not a whole number from 0 to 16`),
				at(ifaces + "].eth0.tx: -1 is not a whole number from 0 to 16"),
				at(ifaces + "].eth0.rxqsz: 2048 is not a power of two from 256 to 1024"),
				at(ifaces + "].eth0.txqsz: 1e3 is not a power of two from 256 to 1024"),
				at(ifaces + `].eth0.isl3: "yes" is neither true nor false (write true or false)`),
				at(ifaces + `].eth0.rxMode: "fast" is not a mode (write interrupt, adaptive or polling)`),
				at(ifaces + "].e0.rxMode: 1 is not a text (write interrupt, adaptive or polling)"),
				at(ifaces + "].e1.Rx: is not known (use rx, tx, rxqsz, txqsz, isl3 or rxMode)")},
		},
		"bad names": {
			in: m{ifaces: `{"": {}, "a-name-of-16-byte": {}, "a/b": {}}`},
			errs: []string{
				at(ifaces + `]: "" is empty (name the pod's interface, such as eth0)`),
				at(ifaces + `]: "a-name-of-16-byte" is longer than 15 bytes (name the pod's interface, such as eth0)`),
				at(ifaces + `]: "a/b" is not an interface's name (name the pod's interface, such as eth0)`)},
		},
		"VPP's host stack": {
			in:   m{podspec.AnnotationVCL: "enable"},
			errs: []string{at(podspec.AnnotationVCL + "]: VPP's host stack is not offered (remove it; applications use the kernel's sockets, or a memif (" + ports + "))")},
		},
		"no host stack": {in: m{podspec.AnnotationVCL: "disable", podspec.AnnotationSources: "[]"}},
	} {
		t.Run(name, func(t *testing.T) {
			spec, errs := podspec.Parse(c.in)
			require.Equal(t, c.want, spec)
			require.Equal(t, c.errs, texts(errs))
		})
	}
}

func udp(port uint16) []dataplane.PortRange {
	return []dataplane.PortRange{{Protocol: dataplane.ProtocolUDP, First: port, Last: port}}
}

// What is not a JSON object at all is told once, with what it should be.
func TestNotAnObject(t *testing.T) {
	for text, reason := range map[string]string{
		``: "is not JSON: it ends too early", `{`: "is not JSON: it ends too early", `{"eth0": {}`: "is not JSON: it ends too early",
		`[]`: "is not a JSON object", `null`: "is not a JSON object", `"eth0"`: "is not a JSON object",
		`{} x`: "has something after the JSON object", `{}{}`: "has something after the JSON object",
		`{"eth0": {}, "eth0": {}}`:  `"eth0" is given twice`,
		`{eth0: {}}`:                "is not JSON: invalid character 'e'",
		strings.Repeat(" ", 17<<10): "is longer than 16384 bytes",
	} {
		spec, errs := podspec.Parse(map[string]string{ifaces: text})
		require.Empty(t, spec)
		require.Len(t, errs, 1, text)
		require.Contains(t, errs[0].Reason, reason)
		require.Contains(t, errs[0].Remedy, `{"eth0": {"rx": 1}}`)
	}
	_, errs := podspec.Parse(map[string]string{ifaces: `{"eth0": 1}`})
	require.Equal(t, []string{"metadata.annotations[" + ifaces + `].eth0: is not a JSON object (write a JSON object, such as {"rx": 1, "rxMode": "interrupt"})`}, texts(errs))
}

func TestBadPorts(t *testing.T) {
	var many []string
	for i := range podspec.MaxPortRanges + 1 {
		many = append(many, fmt.Sprintf("tcp:%d", 2*i+1))
	}
	for text, reason := range map[string]string{
		"":            `"" is not a protocol and a port`,
		"5000":        `"5000" is not a protocol and a port`,
		"tcp:1,":      `"" is not a protocol and a port`,
		"sctp:1":      `protocol "sctp" is neither tcp nor udp`,
		"TCP:1":       `protocol "TCP" is neither tcp nor udp`,
		"tcp:0":       `port "0" is not a number from 1 to 65535`,
		"tcp:+1":      `port "+1" is not a number`,
		"tcp:":        `port "" is not a number`,
		"tcp:1-":      `port "" is not a number`,
		"tcp:65536":   `port "65536" is not a number`,
		"udp:1-2-3":   `port "2-3" is not a number`,
		"udp:20-10":   "the range ends before it begins",
		"udp:1:2":     `port "1:2" is not a number`,
		"udp:1;tcp:2": `port "1;tcp:2" is not a number`,

		strings.Join(many, ","):       "has 65 ranges, more than 64",
		strings.Repeat("tcp:1,", 3e3): "is longer than 16384 bytes",
	} {
		spec, errs := podspec.Parse(map[string]string{ports: text})
		require.Empty(t, spec.Ports, text)
		require.Len(t, errs, 1, text)
		require.Contains(t, errs[0].Reason, reason)
		require.NotEmpty(t, errs[0].Remedy)
	}
}

func TestSelect(t *testing.T) {
	require.Nil(t, podspec.Select(map[string]string{"a": "b"}))
	require.Equal(t, map[string]string{ports: "x"}, podspec.Select(map[string]string{"a": "b", ports: "x"}))
}

// FuzzParse: whatever a pod says, what comes out is within the limits, each
// error names a field and a reason, and the ports can be written and read again.
func FuzzParse(f *testing.F) {
	f.Add(`{"eth0": {"rx": 1, "tx": 1, "rxqsz": 1024, "txqsz": 1024, "isl3": true, "rxMode": "interrupt"}, "memif0": {}}`, "tcp:4444-20000,udp:5000", `{"isl3": false}`)
	f.Add(`{"eth0": {"rx": 1e400}}`, "udp:65535-65535, udp:1-65534", `{`)
	f.Add("{\"\\u0000\": {\"rxMode\": \"\\ud800\"}}", ",", "null")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		in := map[string]string{ifaces: a, ports: b, memif: c}
		spec, errs := podspec.Parse(in)
		for _, e := range errs {
			if e.Field == "" || e.Reason == "" {
				t.Fatalf("%+v", e)
			}
		}
		check := func(i podspec.Interface) {
			for _, r := range []uint16{i.RxRing, i.TxRing} {
				if r != 0 && (r < podspec.MinRing || r > podspec.MaxRing || r&(r-1) != 0) {
					t.Fatalf("ring %d", r)
				}
			}
			if i.Rx > podspec.MaxQueues || i.Tx > podspec.MaxQueues {
				t.Fatalf("%+v", i)
			}
		}
		check(spec.Memif)
		for name, i := range spec.Interfaces {
			if name == "" || strings.HasPrefix(name, "memif") {
				t.Fatalf("name %q", name)
			}
			check(i)
		}
		if len(spec.Ports) > podspec.MaxPortRanges {
			t.Fatalf("%d ranges", len(spec.Ports))
		}
		if len(spec.Ports) == 0 {
			return
		}
		again, err := dataplane.ParsePorts(dataplane.FormatPorts(spec.Ports))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(spec.Ports) {
			t.Fatalf("%v became %v: %v", spec.Ports, again, err)
		}
	})
}
