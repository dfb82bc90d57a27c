package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
)

// Residue lists what a tree still holds that a lab has made: processes besides
// init and the worker, named network namespaces, and links in the tree's own
// one. It is for the worker, after it has cleaned up; the kernel removes all of
// it with the tree anyway, but what is found here was forgotten.
func Residue() ([]string, error) {
	var left []string
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || len(raw) == 0 {
			continue // gone meanwhile, or a zombie about to be reaped
		}
		left = append(left, fmt.Sprintf("process %d: %s", pid, strings.TrimSpace(strings.ReplaceAll(string(raw), "\x00", " "))))
	}
	names, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, n := range names {
		left = append(left, "network namespace "+n.Name())
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		// Fallback tunnels come with a namespace on some kernels.
		if l.Name != "lo" && !strings.HasSuffix(l.Name, "0") {
			left = append(left, "link "+l.Name)
		}
	}
	return left, nil
}
