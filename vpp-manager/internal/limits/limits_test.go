package limits

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// machine is a root folder with this core_pattern.
func machine(t *testing.T, pattern string) string {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "proc/sys/kernel"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "proc/sys/kernel/core_pattern"), []byte(pattern+"\n"), 0o644))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "usr/lib"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "usr/lib/catch"), nil, 0o755))
	return root
}

func TestCores(t *testing.T) {
	for pattern, want := range map[string]struct {
		text    string
		problem bool
	}{
		"core":               {"/run/vpp/core", false},
		"core.%p":            {"/run/vpp/core.%p", false},
		"/usr/lib/core":      {"dumps go to /usr/lib/core", false},
		"/var/none/core":     {"the folder /var/none is not there", true},
		"|/usr/lib/catch %P": {"pipes dumps to /usr/lib/catch", false},
		"|/usr/lib/none %P":  {"/usr/lib/none, which is not here", true},
		"|":                  {"no program", true},
		"":                   {"writes no dumps", true},
	} {
		where, problem := Cores(machine(t, pattern), "/run/vpp")
		require.Contains(t, where, want.text, pattern)
		require.Equal(t, want.problem, problem, pattern)
	}
	_, problem := Cores(t.TempDir(), "/run/vpp")
	require.True(t, problem)
}

func TestSetCores(t *testing.T) {
	root := machine(t, "|/usr/lib/catch")
	read := func() string {
		raw, err := os.ReadFile(filepath.Join(root, "proc/sys/kernel/core_pattern"))
		require.NoError(t, err)
		return strings.TrimSpace(string(raw))
	}
	dir := t.TempDir()
	require.NoError(t, RestoreCores(root, dir), "nothing to do")
	require.NoError(t, SetCores(root, dir, "/usr/lib/core.%p"))
	require.Equal(t, "/usr/lib/core.%p", read())
	// Whoever set it may have been killed: nothing but the file is left.
	require.NoError(t, RestoreCores(root, dir))
	require.Equal(t, "|/usr/lib/catch", read())
	require.NoFileExists(t, filepath.Join(dir, CoresFile))

	require.NoError(t, SetCores(root, dir, "mine"))
	require.NoError(t, os.WriteFile(filepath.Join(root, "proc/sys/kernel/core_pattern"), []byte("another's\n"), 0o644))
	require.NoError(t, RestoreCores(root, dir))
	require.Equal(t, "another's", read(), "somebody else has set it since")
	require.NoFileExists(t, filepath.Join(dir, CoresFile))

	for _, bad := range []string{"", "a\nb", strings.Repeat("x", 128)} {
		require.Error(t, SetCores(root, dir, bad))
	}
}

func TestRaise(t *testing.T) {
	var before, after unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &before)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: min(64, before.Max), Max: before.Max}))
	err := Raise()
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &after))
	if err != nil {
		// Not everybody may: as far as it goes, and with words.
		require.ErrorIs(t, err, ErrRefused)
		require.ErrorContains(t, err, "CAP_SYS_RESOURCE")
		require.Equal(t, before.Max, after.Cur)
		return
	}
	require.GreaterOrEqual(t, after.Cur, min(mostFiles, openFiles()))
}
