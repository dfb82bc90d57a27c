package startup

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files")

func TestText(t *testing.T) {
	for name, c := range map[string]Config{
		"default": {RunDir: "/run/vpp", MainHeap: "256M", Buffers: 32768, Plugins: DefaultPlugins()},
		"full": {
			RunDir: "/run/sidewinder/node-1", Workers: 2, MainHeap: "1G", Buffers: 65536, HugePages: true,
			Plugins: []string{"af_packet_plugin.so"}, Extra: "logging { default-log-level debug }\n\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.Text()
			require.NoError(t, err)
			file := filepath.Join("testdata", name+".conf")
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), got)
		})
	}
}

func TestTextRefuses(t *testing.T) {
	for dir, why := range map[string]string{
		"run":                  "not an absolute path",
		"/run/" + longName():   "too long",
		"/run/with space":      "cannot quote",
		"/run/{brace":          "cannot quote",
		"/run/#comment":        "cannot quote",
		"/run/quote\"":         "cannot quote",
		"/run/vpp\rapi-seg":    `the character '\r'`,
		"/run/a\nb":            `the character '\n'`,
		"/run/a\vb":            `the character '\v'`,
		"/run/a\x00b":          `the character '\x00'`,
		"/run/no-break\u00a0b": `the character '\u00a0'`,
		"/run/\xff":            "cannot quote",
	} {
		_, err := Config{RunDir: dir}.Text()
		require.ErrorIs(t, err, ErrRunDir, dir)
		require.ErrorContains(t, err, why, dir)
	}
	require.NoError(t, CheckRunDir("/run/sidewinder_1/Node-2.a:b@c,d=e+f~"))
}

func longName() string { return strings.Repeat("x", 100) }

func TestShmPrefixTellsRunDirsApart(t *testing.T) {
	a, b := Config{RunDir: "/run/a"}, Config{RunDir: "/run/b"}
	require.NotEqual(t, a.ShmPrefix(), b.ShmPrefix())
	require.Equal(t, a.ShmPrefix(), Config{RunDir: "/run/a"}.ShmPrefix())
}

func TestInstalledPlugins(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "lib", "x86_64-linux-gnu", "vpp_plugins")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ping_plugin.so"), nil, 0o644))
	vpp := filepath.Join(root, "bin", "vpp")
	require.NoError(t, os.MkdirAll(filepath.Dir(vpp), 0o755))
	require.NoError(t, os.WriteFile(vpp, nil, 0o755))
	require.Equal(t, []string{"ping_plugin.so"}, InstalledPlugins(vpp, DefaultPlugins()))

	link := filepath.Join(t.TempDir(), "vpp")
	require.NoError(t, os.Symlink(vpp, link))
	require.Equal(t, []string{"ping_plugin.so"}, InstalledPlugins(link, DefaultPlugins()), "by way of a symbolic link")

	require.Equal(t, DefaultPlugins(), InstalledPlugins(filepath.Join(t.TempDir(), "bin", "vpp"), DefaultPlugins()), "no plugin folder")
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]uint64{"4k": 4096, "256M": 256 << 20, "1g": 1 << 30, "77": 77} {
		got, ok := ParseSize(in)
		require.True(t, ok, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"", "M", "-1M", "1.5G", "0", "99999999999G"} {
		_, ok := ParseSize(in)
		require.False(t, ok, in)
	}
}
