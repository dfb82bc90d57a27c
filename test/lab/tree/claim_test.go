package tree

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Roles of this test binary besides those of a tree.
const (
	// argFence is PID 1 of a PID namespace in which init is started by hand, so
	// that what a faulty init kills is in there too.
	argFence = "sidewinder-lab-test-fence"
	// argWitness is a process that only lives, until it is killed.
	argWitness = "sidewinder-lab-test-witness"
)

// Statuses of those roles.
const (
	exitWorked        = 42
	exitWitnessKilled = 43
	exitBroken        = 44
)

func TestMain(m *testing.M) {
	switch os.Args[0] {
	case argFence:
		os.Exit(fence())
	case argWitness:
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	Dispatch()
	if _, ok := Current(); ok {
		os.Exit(exitWorked)
	}
	os.Exit(m.Run())
}

// fence starts init next to a witness, hands its descriptor 3 on if it has one,
// and gives its status, or says that the witness was killed.
func fence() int {
	witness := exec.Command(selfExe)
	witness.Args = []string{argWitness}
	if err := witness.Start(); err != nil {
		return exitBroken
	}
	died := make(chan struct{})
	go func() { _ = witness.Wait(); close(died) }()
	cmd := exec.Command(selfExe)
	cmd.Args = []string{argInit}
	cmd.Stderr = os.Stderr
	if os.Getenv(envPiped) != "" {
		cmd.ExtraFiles = []*os.File{os.NewFile(aliveFD, "handed on")}
	}
	err := cmd.Run()
	select {
	case <-died:
		return exitWitnessKilled
	case <-time.After(300 * time.Millisecond):
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return exitBroken
	}
	return cmd.ProcessState.ExitCode()
}

// envPiped tells the fence that its descriptor 3 is a pipe.
const envPiped = "SIDEWINDER_LAB_TEST_PIPED"

// fenced makes a process of this binary the first in namespaces of its own.
func fenced(t *testing.T, role string, in Inside, pipe *os.File) *exec.Cmd {
	t.Helper()
	raw, err := json.Marshal(in)
	require.NoError(t, err)
	cmd := exec.Command(selfExe)
	cmd.Args = []string{role}
	cmd.Env = append(os.Environ(), envInside+"="+string(raw))
	if pipe != nil {
		cmd.ExtraFiles = []*os.File{pipe}
		cmd.Env = append(cmd.Env, envPiped+"=1")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if !privileged() {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// needNamespaces skips where the kernel makes none.
func needNamespaces(t *testing.T) {
	t.Helper()
	cmd := fenced(t, argWitness, Inside{}, nil)
	if err := cmd.Start(); err != nil {
		t.Skipf("needs PID and mount namespaces: %v", err)
	}
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
}

// pipeWith gives the reading end of a pipe that holds a text, and whose writing
// end is closed: an outer process that is gone.
func pipeWith(t *testing.T, text string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	_, err = w.WriteString(text)
	require.NoError(t, errors.Join(err, w.Close()))
	return r
}

// labDirIn makes a directory with a file that a lab at its end would remove.
func labDirIn(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600))
	return dir
}

// TestInitStartedByHand: outside of a lab init kills nothing, mounts nothing and
// removes nothing, whatever the process that it is was called and given.
func TestInitStartedByHand(t *testing.T) {
	needNamespaces(t)
	host, err := ownNamespaces()
	require.NoError(t, err)
	said := func(in Inside, outer namespaces) string {
		raw, err := json.Marshal(hello{Inside: in, Outer: outer})
		require.NoError(t, err)
		return string(raw)
	}
	for _, c := range []struct {
		name, dir string
		role      string
		pipe      func(in Inside) string
		want      string
	}{
		{"not first, no pipe", "sidewinder-lab-7", argFence, nil, "is not the first of its PID namespace"},
		{"not first, outer process gone", "sidewinder-lab-7", argFence, func(Inside) string { return "" }, "is not the first of its PID namespace"},
		{"not first, all else right", "sidewinder-lab-7", argFence, func(in Inside) string { return said(in, host) }, "is not the first of its PID namespace"},
		{"first, no pipe", "sidewinder-lab-7", argInit, nil, "the pipe to the outer process"},
		{"first, outer process gone", "sidewinder-lab-7", argInit, func(Inside) string { return "" }, "nothing was left in it"},
		{"first, another text", "sidewinder-lab-7", argInit, func(Inside) string { return "hello" }, "the pipe to the outer process"},
		{"first, another lab", "sidewinder-lab-7", argInit, func(in Inside) string {
			in.ID = "8"
			return said(in, host)
		}, "does not say what the outer process says"},
		{"first, namespaces unknown", "sidewinder-lab-7", argInit, func(in Inside) string { return said(in, namespaces{}) }, "is not the lab's own"},
		{"first, mount namespace unknown", "sidewinder-lab-7", argInit, func(in Inside) string { return said(in, namespaces{PID: host.PID}) }, "mount namespace"},
		{"first, not a lab's directory", "home", argInit, func(in Inside) string { return said(in, host) }, "is not the name of a work directory"},
		{"first, a directory of like name", "sidewinder-lab-src", argInit, func(in Inside) string { return said(in, host) }, "is not the name of a work directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := Inside{ID: "7", Dir: labDirIn(t, c.dir), Rootless: !privileged()}
			var pipe *os.File
			if c.pipe != nil {
				pipe = pipeWith(t, c.pipe(in))
			}
			cmd := fenced(t, c.role, in, pipe)
			var out bytes.Buffer
			cmd.Stderr = &out
			_ = cmd.Run()
			require.Equal(t, exitSetup, cmd.ProcessState.ExitCode(), out.String())
			require.Contains(t, out.String(), c.want)
			require.Contains(t, out.String(), "is started by the lab itself")
			require.FileExists(t, filepath.Join(in.Dir, "precious"))
		})
	}
}

// TestInitOfALab: what the refusals let through. An init whose outer process is
// gone removes the directory.
func TestInitOfALab(t *testing.T) {
	needNamespaces(t)
	in := Inside{ID: "7", Dir: labDirIn(t, "sidewinder-lab-7"), Rootless: !privileged()}
	code, err := runOuter(in)
	require.NoError(t, err)
	require.Equal(t, exitWorked, code)
	require.FileExists(t, filepath.Join(in.Dir, "precious"), "the outer process removes it, not init")

	host, err := ownNamespaces()
	require.NoError(t, err)
	raw, err := json.Marshal(hello{Inside: in, Outer: host})
	require.NoError(t, err)
	cmd := fenced(t, argInit, in, pipeWith(t, string(raw)))
	var out bytes.Buffer
	cmd.Stderr = &out
	_ = cmd.Run()
	require.NoDirExists(t, in.Dir, out.String())
}

// TestWorkerStartedByHand: the name and the environment make no worker.
func TestWorkerStartedByHand(t *testing.T) {
	needNamespaces(t)
	in := Inside{ID: "7", Dir: labDirIn(t, "sidewinder-lab-7")}
	cmd := fenced(t, argWorker, in, nil)
	cmd.Args = append(cmd.Args, "-test.run=^$")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "it was taken for a worker: %s", out)
}

func TestLabDir(t *testing.T) {
	good := labDirIn(t, "sidewinder-lab-123")
	_, err := labDir(good)
	require.NoError(t, err)
	link := filepath.Join(t.TempDir(), "sidewinder-lab-5")
	require.NoError(t, os.Symlink(good, link))
	for path, want := range map[string]string{
		"":                                "not the name",
		"/":                               "not the name",
		"/tmp":                            "not the name",
		filepath.Dir(good):                "not the name",
		good + "/":                        "not the name",
		good + "/precious":                "not the name",
		"sidewinder-lab-123":              "not the name",
		"/tmp/sidewinder-lab-":            "not the name",
		"/tmp/sidewinder-lab-12a":         "not the name",
		good + "/../" + dirPrefix + "123": "not the name",
		link:                              "not a directory",
		"/nonexistent/" + dirPrefix + "1": "no such file",
	} {
		_, err := labDir(path)
		require.ErrorContains(t, err, want, path)
	}
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(good, 65534, 65534))
		_, err = labDir(good)
		require.ErrorContains(t, err, "belongs to another user")
	}
}
