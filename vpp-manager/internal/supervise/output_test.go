package supervise

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTail(t *testing.T) {
	var tl tail
	for i := range 5000 {
		_, _ = tl.Write([]byte("line " + strconv.Itoa(i) + "\n\n"))
	}
	require.Equal(t, []string{"line 4998", "line 4999"}, tl.last(2))
	_, _ = tl.Write([]byte("\x1b[93maf_xdp [warn]: \x1b[0mno\n\x1b[0m\n"))
	require.Equal(t, []string{"af_xdp [warn]: no"}, tl.last(1))
}

func TestLastWordsAreOfThisLife(t *testing.T) {
	c := config(t)
	require.NoError(t, os.WriteFile(c.LogFile(), []byte("words of an earlier life\n"), 0o644))
	for text, want := range map[string][]string{
		"exit 1":                        nil,
		"echo mine >>vpp.log; exit 1":   {"mine"},
		"echo afresh >vpp.log; exit 1":  {"afresh"},
		"rm vpp.log; echo err; exit 1":  {"err"},
		"seq 3000 >>vpp.log; exit 1":    {"2996", "2997", "2998", "2999", "3000"},
		"echo a >>vpp.log;echo b; exit": {"a", "b"},
	} {
		require.NoError(t, os.WriteFile(c.LogFile(), []byte("words of an earlier life\n"), 0o644))
		p, err := Start(script(t, text), c)
		require.NoError(t, err)
		require.Equal(t, want, p.Death().LastLines, text)
		p.Stop(0)
	}
}

func TestRotate(t *testing.T) {
	log := filepath.Join(t.TempDir(), "vpp.log")
	size, err := rotate(log, 10)
	require.NoError(t, err)
	require.Zero(t, size, "no log yet")

	require.NoError(t, os.WriteFile(log, []byte("0123456789"), 0o644))
	size, err = rotate(log, 10)
	require.NoError(t, err)
	require.EqualValues(t, 10, size)
	require.NoFileExists(t, log+".1")

	for _, text := range []string{"first", "second"} { // the second replaces the first
		text += strings.Repeat("x", 10)
		require.NoError(t, os.WriteFile(log, []byte(text), 0o644))
		size, err = rotate(log, 10)
		require.NoError(t, err)
		require.Zero(t, size)
		require.NoFileExists(t, log)
		raw, err := os.ReadFile(log + ".1")
		require.NoError(t, err)
		require.Equal(t, text, string(raw))
	}
}
