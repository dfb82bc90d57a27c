package tree

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Command is an exec.Cmd that runs name in the network namespace at nsPath, with
// a /sys that shows that namespace's interfaces, and hostname as its host name.
// The process that Start gives is the program itself: no helper stays between.
// It belongs to a process group of its own.
func Command(nsPath, hostname, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(selfExe)
	cmd.Args = append([]string{argEnter, nsPath, hostname, name}, args...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	return cmd
}

// exitEnter is the status when the program could not be started; 127 when it
// was not found, as shells do.
const (
	exitEnter    = 126
	exitNotFound = 127
)

// runEnter moves this thread into the namespaces and becomes the program.
func runEnter(args []string) int {
	if len(args) < 3 {
		fmt.Fprintf(os.Stderr, "%s: want namespace, host name and command\n", argEnter)
		return exitEnter
	}
	nsPath, hostname, argv := args[0], args[1], args[2:]
	runtime.LockOSThread()
	if err := enter(nsPath, hostname); err != nil {
		fmt.Fprintf(os.Stderr, "lab: enter %s: %v\n", hostname, err)
		return exitEnter
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
		return exitNotFound
	}
	err = unix.Exec(path, argv, os.Environ())
	fmt.Fprintf(os.Stderr, "lab: run %s: %v\n", path, err)
	return exitEnter
}

func enter(nsPath, hostname string) error {
	f, err := os.Open(nsPath)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	// Slave: pods' namespaces that are made later still appear here, and this
	// /sys stays here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("mount propagation: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	return nil
}
