package startup

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func merged(t *testing.T, extra string) string {
	t.Helper()
	c := Config{RunDir: "/run/vpp", MainHeap: "256M", Buffers: 2048, Workers: 1, Plugins: DefaultPlugins(), Extra: extra}
	text, err := c.Text()
	require.NoError(t, err, extra)
	return text
}

func TestSnippetsAreMerged(t *testing.T) {
	for name, tc := range map[string]struct {
		extra         string
		want, wantNot []string
	}{
		"a section of its own": {
			extra: "logging {\n  default-log-level debug # much\n}\nl3xc { a { b } }\n",
			want:  []string{"logging { default-log-level debug }", "l3xc { a { b } }"},
		},
		"a value of ours": {
			extra:   "memory { main-heap-size 1G }",
			want:    []string{"memory { main-heap-size 1G main-heap-page-size 4k }"},
			wantNot: []string{"256M"},
		},
		"more in a section of ours": {
			extra: "buffers { default data-size 9216 }\nunix {\n exec /etc/vpp/setup.cli\n}",
			want:  []string{"buffers { buffers-per-numa 2048 page-size 4k default data-size 9216 }", "  exec /etc/vpp/setup.cli\n"},
		},
		"plugins by name": {
			extra:   "plugins { plugin ping_plugin.so { disable } plugin acl_plugin.so{enable} add-path /a add-path /b }",
			want:    []string{"plugin ping_plugin.so { disable }", "plugin acl_plugin.so { enable }", "add-path /a", "add-path /b", "plugin af_xdp_plugin.so { enable }"},
			wantNot: []string{"plugin ping_plugin.so { enable }"},
		},
		"placement as a whole": {
			extra:   "cpu {\n  main-core 3\n  corelist-workers 4-5\n}",
			want:    []string{"cpu { main-core 3 corelist-workers 4-5 }"},
			wantNot: []string{"workers 1"},
		},
		"cpu without placement": {
			extra: "cpu { scheduler-policy fifo scheduler-priority 50 }",
			want:  []string{"cpu { workers 1 scheduler-policy fifo scheduler-priority 50 }"},
		},
		"the same again": {
			extra: "socksvr { socket-name /run/vpp/api.sock } unix { nodaemon }",
			want:  []string{"socksvr { socket-name /run/vpp/api.sock }"},
		},
		"one section twice": {
			extra: "logging { a 1 }\nlogging { b 2 }",
			want:  []string{"logging { a 1 b 2 }"},
		},
		"a flag": {
			extra: "unix { cli-no-pager full-coredump }",
			want:  []string{"  cli-no-pager\n  full-coredump\n"},
		},
		"nothing": {extra: "# a comment { \n\n", want: []string{"cpu { workers 1 }"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := merged(t, tc.extra)
			for _, w := range tc.want {
				require.Equal(t, 1, strings.Count(text, w), "%q in:\n%s", w, text)
			}
			for _, w := range tc.wantNot {
				require.NotContains(t, text, w)
			}
		})
	}
}

func TestSnippetsThatAreRefused(t *testing.T) {
	for extra, why := range map[string]string{
		"socksvr { socket-name /tmp/other }":   `section socksvr: "socket-name /tmp/other" cannot be set; it is "socket-name /run/vpp/api.sock"`,
		"socksvr { default }":                  "cannot be set",
		"api-segment { prefix mine }":          "section api-segment",
		"unix { interactive }":                 "vpp-manager and the agent rely on it",
		"unix { cli-listen localhost:5002 }":   "cannot be set",
		"statseg { socket-name /x }":           "cannot be set",
		"logging {":                            "section logging: } is missing",
		"logging default":                      "{ is missing",
		"{ }":                                  "begins with its name",
		"} x":                                  "begins with its name",
		"\nlogging { { x } }":                  "line 2: section logging: a block without a key",
		"memory { main-heap-size }":            "main-heap-size has no value",
		"a " + strings.Repeat("{ b ", 20):      "nested",
		"logging { x }\n\nmemory\nbuffers { }": "line 4: section memory: { is missing",
	} {
		_, err := Config{RunDir: "/run/vpp", MainHeap: "256M", Buffers: 2048, Extra: extra}.Text()
		require.ErrorIs(t, err, ErrSnippet, extra)
		require.ErrorContains(t, err, why, extra)
	}
}

func TestDPDKSection(t *testing.T) {
	text, err := Config{
		RunDir: "/run/vpp", MainHeap: "256M", Buffers: 2048, DPDK: "no-pci\ndev 0000:00:05.0 { name up0 num-rx-queues 2 }\nvdev net_af_packet0,iface=eth0",
		Extra: "dpdk { dev 0000:00:05.0 { name other } socket-mem 128 }",
	}.Text()
	require.NoError(t, err)
	require.Contains(t, text, "plugin dpdk_plugin.so { enable }")
	require.Contains(t, text, "  no-pci\n  dev 0000:00:05.0 { name other }\n  vdev net_af_packet0,iface=eth0\n  socket-mem 128\n}\n")
}

// What was merged reads the same again.
func FuzzSnippet(f *testing.F) {
	for _, s := range []string{
		"", "unix { exec a }", "cpu { main-core 1 }", "plugins { plugin a { enable } }", "a { b { c d } e }\n#x\nb{}",
		"memory { main-heap-size 1G }", "buffers { default data-size 1 }", "dpdk { dev 1 {} }", "unix { log",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, extra string) {
		c := Config{RunDir: "/run/vpp", MainHeap: "256M", Buffers: 2048, Extra: extra}
		text, err := c.Text()
		if err != nil {
			require.ErrorIs(t, err, ErrSnippet)
			return
		}
		require.Contains(t, text, "socket-name /run/vpp/api.sock")
		require.Equal(t, 1, strings.Count(text, "\nsocksvr {"), text)
		sections, err := parse(text)
		require.NoError(t, err, text)
		var b strings.Builder
		render(&b, sections)
		_, body, _ := strings.Cut(text, "\n") // the comment
		require.Equal(t, body, b.String())
	})
}
