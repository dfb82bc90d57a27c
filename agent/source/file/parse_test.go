package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/source"
	"github.com/sidewinder-net/sidewinder/agent/status"
)

func texts(problems []status.Problem) []string {
	var all []string
	for _, p := range problems {
		all = append(all, p.String())
	}
	return all
}

const known = `known: projectcalico.org/v3 IPPool, sidewinder.io/v1alpha1 SRv6Locator, sidewinder.io/v1alpha1 SRv6Node, v1 Node, v1 Pod, v1 List`

func TestParseProblems(t *testing.T) {
	const node = "apiVersion: v1\nkind: Node\nmetadata:\n  name: n2\n"
	const pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n"
	const pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: pool\n"
	const locator = "apiVersion: sidewinder.io/v1alpha1\nkind: SRv6Locator\nmetadata:\n  name: fcbb-bb00-0001\n"
	const srv6 = "apiVersion: sidewinder.io/v1alpha1\nkind: SRv6Node\nmetadata:\n  name: n1\n"
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"prefix length": {
			node + "spec:\n  podCIDRs:\n  - 10.1.0.0/33\n",
			[]string{`f.yaml:7: Node/n2: spec.podCIDRs[0]: "10.1.0.0/33" is not a CIDR prefix`},
		},
		"not canonical": {
			node + "spec:\n  podCIDRs: [10.1.0.7/24]\n",
			[]string{`f.yaml:6: Node/n2: spec.podCIDRs[0]: "10.1.0.7/24" has bits set beyond its length; write "10.1.0.0/24": not canonical`},
		},
		"every problem of an object": {
			node + "spec:\n  podCIDRs:\n  - x\n  - 10.1.0.0/24\n  - 10.1.0.0/25\nstatus:\n  addresses:\n  - type: Hostname\n    address: n2\n  - type: InternalIP\n    address: ::ffff:10.0.0.1\n",
			[]string{
				`f.yaml:7: Node/n2: spec.podCIDRs[0]: "x" is not a CIDR prefix`,
				`f.yaml:9: Node/n2: spec.podCIDRs[2]: 10.1.0.0/25 overlaps spec.podCIDRs[0], 10.1.0.0/24`,
				`f.yaml:15: Node/n2: status.addresses[1].address: "::ffff:10.0.0.1" is an IPv4-mapped IPv6 address; write "10.0.0.1"`,
			},
		},
		"podCIDR and podCIDRs differ": {
			node + "spec:\n  podCIDR: 10.1.0.0/24\n  podCIDRs: [10.2.0.0/24]\n",
			[]string{`f.yaml:6: Node/n2: spec.podCIDR: "10.1.0.0/24" is not the same as spec.podCIDRs[0], "10.2.0.0/24"`},
		},
		"podCIDR alone": {
			node + "spec:\n  podCIDR: 10.1.0.0\n",
			[]string{`f.yaml:6: Node/n2: spec.podCIDR: "10.1.0.0" is not a CIDR prefix`},
		},
		"unknown field": {
			node + "spec:\n  podCIDRS:\n  - 10.1.0.0/24\n",
			[]string{`f.yaml:6: Node/n2: spec.podCIDRS: unknown field`},
		},
		"unknown fields in lists and maps": {
			pod + "spec:\n  containers:\n  - name: a\n    imag: x\n  hostnetwork: true\n",
			[]string{`f.yaml:8: Pod/default/p: spec.containers[0].imag: unknown field`, `f.yaml:9: Pod/default/p: spec.hostnetwork: unknown field`},
		},
		"wrong type": {
			node + "spec:\n  podCIDRs: 10.1.0.0/24\n",
			[]string{`f.yaml:6: Node/n2: spec.podCIDRs: is a text, want a list`},
		},
		"wrong type in a list": {
			node + "spec:\n  podCIDRs:\n  - 10.1.0.0/24\n  - 5\n",
			[]string{`f.yaml:8: Node/n2: spec.podCIDRs[1]: is a number, want a text (numbers and the like in quotes)`},
		},
		"bool": {
			pool + "spec:\n  cidr: 10.1.0.0/16\n  disabled: maybe\n",
			[]string{`f.yaml:7: IPPool/pool: spec.disabled: is a text, want true or false`},
		},
		"object for text": {
			"apiVersion: v1\nkind: Node\nmetadata:\n  name: n2\nspec:\n  providerID:\n    a: b\n",
			[]string{`f.yaml:6: Node/n2: spec.providerID: is an object, want a text (numbers and the like in quotes)`},
		},
		"list for object": {
			node + "spec: []\n",
			[]string{`f.yaml:5: Node/n2: spec: is a list, want an object`},
		},
		"label": {
			"apiVersion: v1\nkind: Node\nmetadata:\n  labels:\n    a: b\n    gpu: true\n  name: n2\n",
			[]string{`f.yaml:6: Node/n2: metadata.labels.gpu: is true or false, want a text (numbers and the like in quotes)`},
		},
		"type with its own reader": {
			node + "status:\n  capacity:\n    cpu: \"4\"\n    memory: lots\n",
			[]string{`f.yaml:8: Node/n2: status.capacity.memory: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'`},
		},
		"time": {
			"apiVersion: v1\nkind: Node\nmetadata:\n  name: n2\n  creationTimestamp: now\n",
			[]string{`f.yaml:5: Node/n2: metadata.creationTimestamp: parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006"`},
		},
		"duplicate key": {
			node + "spec:\n  podCIDR: 10.1.0.0/24\n  podCIDR: 10.2.0.0/24\n",
			[]string{`f.yaml:7: Node/n2: spec.podCIDR: is given twice; the first is on line 6`},
		},
		"merge key": {
			"apiVersion: v1\nkind: Node\nmetadata: &m\n  name: n2\nspec:\n  <<: *m\n",
			[]string{`f.yaml:6: Node/n2: spec.<<: merge keys are not supported; write the fields out`},
		},
		"no name": {
			"apiVersion: v1\nkind: Node\nmetadata:\n  labels: {}\n",
			[]string{`f.yaml:3: Node/(no name): metadata.name: is missing`},
		},
		"namespace on a node": {
			"apiVersion: v1\nkind: Node\nmetadata:\n  name: n2\n  namespace: x\n",
			[]string{`f.yaml:5: Node/n2: metadata.namespace: "x": the object belongs to the whole cluster, not to a namespace`},
		},
		"unknown kind": {
			"apiVersion: v1\nkind: Service\nmetadata:\n  name: s\n",
			[]string{`f.yaml:2: kind: "Service" of "v1" is not known; ` + known},
		},
		"kind of another version": {
			"apiVersion: v2\nkind: Node\n",
			[]string{`f.yaml:2: kind: "Node" of "v2" is not known; ` + known},
		},
		"no kind":       {"apiVersion: v1\n", []string{`f.yaml:1: kind: is missing; ` + known}},
		"no apiVersion": {"\nkind: Node\n", []string{`f.yaml:2: apiVersion: is missing; ` + known}},
		"a list":        {"# one\n- a\n", []string{`f.yaml:2: is not an object with apiVersion and kind`}},
		"twice in a file": {
			node + "---\n" + node,
			[]string{`f.yaml:9: Node/n2: metadata.name: is defined a second time; the first is on line 4`},
		},
		"second document": {
			node + "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: N3\n",
			[]string{`f.yaml:9: Node/N3: metadata.name: "N3" is not a name: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`},
		},
		"item of a List": {
			"apiVersion: v1\nkind: List\nmetadata:\n  resourceVersion: \"\"\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata:\n    name: n1\n  spec:\n    podCIDR: 10.1.0.0/x\n",
			[]string{`f.yaml:11: Node/n1: spec.podCIDR: "10.1.0.0/x" is not a CIDR prefix`},
		},
		"List in a List": {
			"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n",
			[]string{`f.yaml:5: kind: "List" of "v1" is not known; ` + known},
		},
		"List without items": {
			"apiVersion: v1\nkind: List\nitem: []\nitems: {}\n",
			[]string{`f.yaml:3: List: item: unknown field`, `f.yaml:4: List: items: is not a list`},
		},
		"pod addresses": {
			pod + "status:\n  phase: Running\n  podIP: 10.1.0.5\n  podIPs:\n  - ip: 10.1.0.6\n  - ip: 10.1.0.256\n",
			[]string{
				`f.yaml:7: Pod/default/p: status.podIP: "10.1.0.5" is not the same as status.podIPs[0].ip, "10.1.0.6"`,
				`f.yaml:10: Pod/default/p: status.podIPs[1].ip: "10.1.0.256" is not an IP address`,
			},
		},
		"pod phase": {
			pod + "status:\n  phase: running\n",
			[]string{`f.yaml:6: Pod/default/p: status.phase: "running" is not one of "Pending", "Running", "Succeeded", "Failed", "Unknown"`},
		},
		"pool without a prefix": {pool + "spec:\n  disabled: true\n", []string{`f.yaml:5: IPPool/pool: spec.cidr: "" is not a CIDR prefix`}},
		"locator and name": {
			locator + "spec:\n  locator: fcbb:bb00:2::/48\n  nodeName: n1\n",
			[]string{`f.yaml:4: SRv6Locator/fcbb-bb00-0001: metadata.name: "fcbb-bb00-0001" is not the name of locator fcbb:bb00:2::/48; write "fcbb-bb00-0002"`},
		},
		"locator's node ID": {
			strings.Replace(locator, "0001", "e000", 1) + "spec:\n  locator: fcbb:bb00:e000::/48\n  nodeName: n1\n",
			[]string{`f.yaml:6: SRv6Locator/fcbb-bb00-e000: spec.locator: "fcbb:bb00:e000::/48": node ID 0xe000 is not between 0x0001 and 0xdfff`},
		},
		"published facts": {
			srv6 + "spec:\n  encapSource: fd00::1\n  locator: fcbb:bb00:1::/48\n  sids:\n  - behaviour: End.DT4\n    sid: 'fcbb:bb00:2:e004::'\n  prefixes: [10.1.0.0/24, 10.1.0.0/24]\n",
			[]string{
				`f.yaml:10: SRv6Node/n1: spec.sids[0].sid: "fcbb:bb00:2:e004::" is not an address in the locator fcbb:bb00:1::/48`,
				`f.yaml:11: SRv6Node/n1: spec.prefixes[1]: "10.1.0.0/24" repeats spec.prefixes[0]`,
			},
		},
		"negative table": {
			srv6 + "spec:\n  encapSource: fd00::1\n  locator: fcbb:bb00:1::/48\n  sids:\n  - behaviour: End.DT4\n    sid: 'fcbb:bb00:1:e004::'\n    table: -1\n",
			[]string{`f.yaml:11: SRv6Node/n1: spec.sids[0].table: is a number -1, want an integer of 0 or more`},
		},
		"syntax": {node + "  labels: a: b\n", []string{`f.yaml:5: not YAML: mapping values are not allowed in this context`}},
		"address without quotes": {srv6 + "spec:\n  sids:\n  - sid: fcbb:bb00:1:e004::\n",
			[]string{`f.yaml:7: not YAML: mapping values are not allowed in this context; put an address that ends in a colon in quotes`}},
		"tab":               {node + "spec:\n\tpodCIDR: x\n", []string{`f.yaml:6: not YAML: found character that cannot start any token`}},
		"half-written list": {"apiVersion: v1\nkind: Node\nspec:\n  podCIDRs: [10.1.0.0/24,\n", []string{`f.yaml:5: not YAML: did not find expected node content`}},
		"half-written text": {node + "spec:\n  podCIDR: \"10.1\n", []string{`f.yaml:6: not YAML: found unexpected end of stream`}},
		"half-written key":  {node + "spec:\n  podCI\n", []string{`f.yaml:5: Node/n2: spec: is a text, want an object`}},
		"bad indentation":   {"apiVersion: v1\nkind: Node\nmetadata:\n    name: n2\n  labels: {}\n", []string{`f.yaml:5: not YAML: did not find expected key`}},
		"good and bad":      {node + "---\na: {\n", []string{`f.yaml:7: not YAML: did not find expected node content`}},
		"unknown anchor":    {node + "spec: *s\n", []string{`f.yaml:5: not YAML: unknown anchor 's' referenced`}},
		"binary":            {"apiVersion: v1\nkind: Node\nmetadata: {name: !!binary bjI=}\n", []string{`f.yaml:3: Node/bjI=: metadata.name: has the YAML tag !!binary, which is not supported`}},
		"infinity":          {node + "spec:\n  podCIDR: .inf\n", []string{`f.yaml:6: Node/n2: spec.podCIDR: ".inf" is not a number that JSON can hold`}},
		"empty":             {"", []string{`f.yaml:1: holds no object (remove the file to remove what it held before)`}},
		"comments only":     {"# nodes\n---\n# none\n", []string{`f.yaml:1: holds no object (remove the file to remove what it held before)`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := parse("f.yaml", []byte(c.text))
			assert.Equal(t, c.want, texts(problems))
		})
	}
}

// The files in testdata are as kubectl prints them.
func TestParseKubectlOutput(t *testing.T) {
	var entries []source.Entry
	files, err := filepath.Glob("testdata/*")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			continue
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		e, problems := parse(filepath.Base(path), text)
		require.Empty(t, texts(problems), path)
		entries = append(entries, e...)
	}
	objs, ok, problems := source.Assemble(entries, source.Options{})
	require.True(t, ok)
	require.Empty(t, texts(problems))
	n := objs.Nodes["worker-1"]
	assert.Equal(t, "[10.244.1.0/24 fd00:10:244:1::/64]", asText(n.PodCIDRs))
	assert.Equal(t, "[172.18.0.3 fc00:f853:ccd:e793::3]", asText(n.Addresses))
	p := objs.Pods["kube-system/coredns-674b8bbfcf-7xk2p"]
	assert.Equal(t, "worker-1", p.Node)
	assert.Equal(t, "[10.244.1.4 fd00:10:244:1::4]", asText(p.IPs))
	assert.False(t, p.Finished)
	assert.True(t, objs.Pods["default/job-1"].Finished)
	assert.True(t, objs.Pods["kube-system/kube-proxy-abcde"].HostNetwork)
	assert.Equal(t, "10.244.0.0/16", objs.Pools["default-ipv4-ippool"].CIDR.String())
}

func TestParseScalars(t *testing.T) {
	// Octal, hexadecimal and unquoted dates are what YAML makes of them; keys
	// that are numbers are texts in JSON.
	entries, problems := parse("f.yaml", []byte(`apiVersion: v1
kind: Pod
metadata:
  name: p
  generation: 0x10
  creationTimestamp: 2024-05-01T10:00:00Z
  labels: {1: "x", true: "y"}
  annotations: &a {k: "v"}
spec:
  nodeSelector: *a
  hostNetwork: true
`))
	require.Empty(t, texts(problems))
	require.Len(t, entries, 1)
}

func TestParseLimits(t *testing.T) {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: Node\nmetadata:\n  name: n\nspec:\n  a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		b.WriteString(strings.ReplaceAll(strings.ReplaceAll("  aN: &aN [*aM,*aM,*aM,*aM,*aM,*aM,*aM,*aM,*aM,*aM]\n", "N", string(rune('0'+i))), "M", string(rune('0'+i-1))))
	}
	_, problems := parse("f.yaml", []byte(b.String()))
	require.Len(t, problems, 1)
	assert.Contains(t, problems[0].Reason, "the object has more than 200000 values")

	_, problems = parse("f.yaml", []byte("apiVersion: v1\nkind: Node\nspec: "+strings.Repeat("[", 100)+strings.Repeat("]", 100)))
	require.Len(t, problems, 1)
	assert.Contains(t, problems[0].Reason, "is nested deeper than 64 levels")

	_, problems = parse("f.yaml", []byte("apiVersion: v1\nkind: Node\nspec: &s\n  a: *s\n"))
	require.Len(t, problems, 1, "a value that holds itself")
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.*")
	for _, path := range files {
		if text, err := os.ReadFile(path); err == nil {
			f.Add(text)
		}
	}
	f.Add([]byte("apiVersion: v1\nkind: List\nitems:\n- &a\n  apiVersion: v1\n  kind: Node\n  metadata: {name: n}\n- *a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, problems := parse("f.yaml", text)
		if len(entries) == 0 && len(problems) == 0 {
			t.Fatal("neither objects nor problems")
		}
		for _, p := range problems {
			if !strings.HasPrefix(p.Object, "f.yaml:") || p.Reason == "" {
				t.Fatalf("a problem without a place or a reason: %+v", p)
			}
			if strings.HasPrefix(p.Reason, "cannot be read: ") {
				t.Fatalf("a panic was caught: %s", p)
			}
		}
		if len(problems) == 0 {
			_, ok, problems := source.Assemble(entries, source.Options{})
			if !ok && len(problems) == 0 {
				t.Fatal("no objects, and no problem that says why")
			}
			for _, p := range problems {
				if p.Reason == "" {
					t.Fatalf("a problem without a reason: %+v", p)
				}
			}
		}
	})
}
