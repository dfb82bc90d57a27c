package preflight

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
)

// knownVPP is the release that all tests run with.
const knownVPP = "25.10"

const installVPP = "install VPP " + knownVPP + " with its plugins, or name the one to use with --vpp or $" + find.Env

func vppBinary(in input) Finding {
	v, err := in.Locate(in.VPP)
	if err != nil {
		return failure(installVPP, "%v", err)
	}
	return ok("%s (from %s)", v.Path, v.From)
}

// pluginsOf are VPP's plugins for the drivers of uplinks and pods.
func pluginsOf(o Options) []string {
	var out []string
	for _, d := range []Driver{AFXDP, AFPacket, DPDK} {
		if o.uses(d) {
			out = append(out, string(d)+"_plugin.so")
		}
	}
	return out
}

func vppPlugins(in input) Finding {
	need := pluginsOf(in.Options)
	if len(need) == 0 {
		return skipped("no driver chosen that needs one")
	}
	v, err := in.Locate(in.VPP)
	if err != nil {
		return skipped("VPP was not found")
	}
	if missing := in.missing(v, need); len(missing) > 0 {
		return failure("install the package vpp-plugin-core (and vpp-plugin-dpdk for dpdk) of the same version, or choose another driver",
			"%s not in the vpp_plugins folder beside %s", strings.Join(missing, ", "), v.Path)
	}
	return ok("%s", strings.Join(need, ", "))
}

// missing are those plugins that do not lie beside the VPP.
func (in input) missing(v find.VPP, need []string) []string {
	have := in.Installed(v.Path, need)
	return slices.DeleteFunc(slices.Clone(need), func(p string) bool { return slices.Contains(have, p) })
}

// memif: what a pod's memif, which an annotation asks for, needs of VPP.
func memif(in input) Finding {
	need := []string{"memif_plugin.so", "acl_plugin.so", "abf_plugin.so"}
	v, err := in.Locate(in.VPP)
	if err != nil {
		return skipped("VPP was not found")
	}
	if missing := in.missing(v, need); len(missing) > 0 {
		return warning("install the package vpp-plugin-core of the same version; or nothing, without such annotations",
			"%s not in the vpp_plugins folder beside %s: pods' memif annotations are not possible", strings.Join(missing, ", "), v.Path)
	}
	return ok("%s: pods' memif annotations are possible", strings.Join(need, ", "))
}

// groupsOf are the API messages that the drivers need, of plugins that VPP loads
// when it is only tried; dpdk's is loaded where it has a NIC.
func groupsOf(o Options) []binapi.Group {
	var out []binapi.Group
	if o.uses(AFXDP) {
		out = append(out, binapi.GroupAFXDP)
	}
	if o.uses(AFPacket) {
		out = append(out, binapi.GroupAFPacket)
	}
	return out
}

func vppAPI(in input) Finding {
	if _, err := in.Locate(in.VPP); err != nil {
		return skipped("VPP was not found")
	}
	v, err := in.started()
	var lacks *binapi.IncompatibleError
	switch {
	case errors.As(err, &lacks):
		return failure("use VPP "+knownVPP, "%v", lacks)
	case err != nil:
		return failure("start it by hand with the configuration that `vpp-manager run` writes, and see what it says", "%v", err)
	}
	return ok("%s started, and has all messages in their known form", v.Path)
}

func vppVersion(in input) Finding {
	if _, err := in.Locate(in.VPP); err != nil {
		return skipped("VPP was not found")
	}
	v, err := in.started()
	var lacks *binapi.IncompatibleError
	switch {
	case errors.As(err, &lacks) && lacks.Version != "":
		return judgeVersion(lacks.Version)
	case err != nil:
		return skipped("it did not start to tell")
	}
	return judgeVersion(v.Version)
}

// release is the number at the beginning of VPP's version text, such as
// 25.10-release or 26.02-rc0~12-gabcdef.
var release = regexp.MustCompile(`^\d+\.\d+`)

func judgeVersion(text string) Finding {
	got, err := version.ParseGeneric(release.FindString(text))
	if err != nil {
		return warning("use VPP "+knownVPP, "its version is no number: %q", text)
	}
	known := version.MustParseGeneric(knownVPP)
	if got.Major() == known.Major() && got.Minor() == known.Minor() {
		return ok("%s", text)
	}
	word := "newer"
	if got.LessThan(known) {
		word = "older"
	}
	return warning("use VPP "+knownVPP+", or try this one with your traffic first",
		"%s is %s than %s, the release that Sidewinder is tested with", text, word, knownVPP)
}

// otherVPP is a VPP process.
type otherVPP struct {
	pid, conf string
	// here: in the network namespace of this process.
	here bool
}

// runningVPPs finds VPPs by the name that VPP gives its main thread.
func runningVPPs(m Machine) []otherVPP {
	mine := m.link("proc/self/ns/net")
	var out []otherVPP
	for _, comm := range m.glob("proc/[0-9]*/comm") {
		if m.text(comm) != "vpp_main" {
			continue
		}
		dir := filepath.Dir(comm)
		args := strings.Split(m.text(filepath.Join(dir, "cmdline")), "\x00")
		o := otherVPP{pid: filepath.Base(dir), here: m.link(filepath.Join(dir, "ns/net")) == mine}
		for i, a := range args {
			if a == "-c" && i+1 < len(args) {
				o.conf = args[i+1]
			}
		}
		out = append(out, o)
	}
	return out
}

// confFile is what the VPP of this run directory was started with.
func (in input) confFile() string {
	dir, err := filepath.Abs(in.RunDir)
	if err != nil {
		dir = in.RunDir
	}
	return startup.Config{RunDir: dir}.ConfFile()
}

// runsAlready goes behind what is said of memory while the VPP of this run
// directory has its share of it; empty when it does not run.
func (in input) runsAlready() string {
	conf := in.confFile()
	for _, o := range runningVPPs(in.Machine) {
		if o.conf == conf {
			return fmt.Sprintf(" (VPP runs, process %s: what it holds does not count as free)", o.pid)
		}
	}
	return ""
}

func vppRunning(in input) []Finding {
	conf := in.confFile()
	var out []Finding
	elsewhere := 0
	for _, o := range runningVPPs(in.Machine) {
		switch {
		case o.conf == conf:
			out = append(out, warning("nothing if that is the one to be checked; a second vpp-manager refuses to start, and a VPP whose vpp-manager is gone is ended by the next one",
				"a VPP runs with this run directory, %s", in.RunDir).of("process "+o.pid))
		case o.here:
			out = append(out, warning("stop it if it uses the same interfaces; systemctl disable --now vpp for a distribution's service",
				"another VPP runs in this network namespace, with %s", orUnknown(o.conf)).of("process "+o.pid))
		default:
			elsewhere++
		}
	}
	switch {
	case out != nil:
	case elsewhere > 0:
		out = append(out, ok("none in this network namespace, %d in others", elsewhere))
	default:
		out = append(out, ok("none"))
	}
	return out
}

func orUnknown(s string) string {
	if s == "" {
		return "a configuration that cannot be read"
	}
	return s
}

func runDir(in input) Finding {
	dir, err := filepath.Abs(in.RunDir)
	if err == nil {
		err = startup.CheckRunDir(dir)
	}
	if err != nil {
		return failure("choose another --run-dir", "%v", err)
	}
	// The first parent that is there decides.
	for at := dir; ; at = filepath.Dir(at) {
		st, err := os.Stat(in.path(at))
		if errors.Is(err, os.ErrNotExist) && at != "/" {
			continue
		}
		switch {
		case err != nil:
			return failure("choose another --run-dir", "%v", err)
		case !st.IsDir():
			return failure("choose another --run-dir", "%s is not a folder", at)
		}
		if err := unix.Access(in.path(at), unix.W_OK|unix.X_OK); err != nil {
			return failure("choose another --run-dir, or run as root", "%s cannot be written to: %v", at, err)
		}
		if at == dir {
			return ok("%s", dir)
		}
		return ok("%s, to be made in %s", dir, at)
	}
}

// bytesText writes a number of bytes for people.
func bytesText(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
