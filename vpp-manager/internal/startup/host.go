package startup

import (
	"os"
	"path/filepath"
	"strconv"
)

// InstalledPlugins keeps those of names that lie beside the VPP at path. When
// its plugin folder is not found, all are kept: VPP ignores what it lacks.
func InstalledPlugins(path string, names []string) []string {
	dirs := pluginDirs(path)
	if len(dirs) == 0 {
		return names
	}
	var out []string
	for _, n := range names {
		for _, d := range dirs {
			if _, err := os.Stat(filepath.Join(d, n)); err == nil {
				out = append(out, n)
				break
			}
		}
	}
	return out
}

// pluginDirs are the existing plugin folders of the VPP at path.
func pluginDirs(path string) []string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	prefix := filepath.Dir(filepath.Dir(path))
	var dirs []string
	for _, pattern := range []string{"lib/vpp_plugins", "lib64/vpp_plugins", "lib/*/vpp_plugins"} {
		found, _ := filepath.Glob(filepath.Join(prefix, pattern))
		dirs = append(dirs, found...)
	}
	return dirs
}

// ParseSize reads VPP's notation of a size: a number with k, m or g.
func ParseSize(s string) (uint64, bool) {
	if s == "" {
		return 0, false
	}
	shift := 0
	switch s[len(s)-1] {
	case 'k', 'K':
		shift = 10
	case 'm', 'M':
		shift = 20
	case 'g', 'G':
		shift = 30
	}
	if shift > 0 {
		s = s[:len(s)-1]
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 || n<<shift>>shift != n {
		return 0, false
	}
	return n << shift, true
}
