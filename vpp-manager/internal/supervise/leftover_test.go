package supervise

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLeftoverOfAKilledManagerIsEnded(t *testing.T) {
	for name, tc := range map[string]struct {
		arg  func(conf string) string
		ends bool
	}{
		"VPP of this run directory": {func(conf string) string { return conf }, true},
		"another with that number":  {func(conf string) string { return conf + ".other" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := config(t)
			old := exec.Command("sh", "-c", "while :; do sleep 0.05; done", "sh", "-c", tc.arg(c.ConfFile()))
			require.NoError(t, old.Start())
			defer func() {
				_ = old.Process.Kill()
				_ = old.Wait()
			}()
			require.NoError(t, os.WriteFile(c.PIDFile(), []byte(strconv.Itoa(old.Process.Pid)+"\n"), 0o644))
			p, err := Start(script(t, "exec sleep 60"), c)
			require.NoError(t, err)
			defer p.Stop(time.Second)
			require.Equal(t, tc.ends, gone(old.Process.Pid))
		})
	}
}

func TestPIDFileThatTellsNothing(t *testing.T) {
	for _, text := range []string{"", "x", "0", "-1", "1", "99999999"} {
		c := config(t)
		require.NoError(t, os.WriteFile(c.PIDFile(), []byte(text), 0o644))
		require.NoError(t, endLeftover(c), text)
	}
}
