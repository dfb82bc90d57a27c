// Package config is the agent's configuration: read and checked once, then
// passed as a value.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"go.yaml.in/yaml/v3"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	cniapi "github.com/sidewinder-net/sidewinder/cni/api"
)

// Dataplane kinds.
const (
	DataplaneLinux = "linux"
	DataplaneVPP   = "vpp"
)

// Config is everything the agent can be told. The zero value is not usable:
// see Default and Load.
type Config struct {
	// NodeName is this node's name in the cluster. Default: the host's name.
	NodeName string `yaml:"nodeName"`
	// Dataplane is "linux" or "vpp".
	Dataplane string `yaml:"dataplane"`
	// SourceDir is the folder of YAML objects.
	SourceDir string `yaml:"sourceDir"`
	// StateDir keeps the pod records over restarts.
	StateDir string `yaml:"stateDir"`
	// Socket is the unix socket for the CNI plugin and the status.
	Socket string `yaml:"socket"`
	// Block is the cluster's SID block, a /32.
	Block string `yaml:"block"`
	// Uplinks name the interfaces that face the underlay. Empty: the ones of
	// the default IPv6 route.
	Uplinks []string `yaml:"uplinks"`
	// EncapSource is the node's own IPv6 address for the outer header. Empty:
	// the Node object's IPv6 InternalIP.
	EncapSource string `yaml:"encapSource"`
	// PodMTU in bytes. 0: the smallest uplink's MTU less the encapsulation.
	PodMTU int `yaml:"podMTU"`
	// ResyncInterval between full comparisons with the dataplane.
	ResyncInterval time.Duration `yaml:"resyncInterval"`
	// ReleaseGrace is how long a node must be gone before its locator may be
	// given to another.
	ReleaseGrace time.Duration `yaml:"releaseGrace"`
	// LogLevel is logrus' name of a level.
	LogLevel string `yaml:"logLevel"`

	VPP VPP `yaml:"vpp"`

	// BlockPrefix is Block, parsed by Validate.
	BlockPrefix netip.Prefix `yaml:"-"`
	// EncapSourceAddr is EncapSource, parsed by Validate; zero when empty.
	EncapSourceAddr netip.Addr `yaml:"-"`
}

// VPP says how to reach VPP and which drivers it uses.
type VPP struct {
	// Socket is VPP's binary API socket.
	Socket string `yaml:"socket"`
	// UplinkDriver is "af_xdp" (shared by the XDP shim), "af_packet" or "dpdk"
	// (the NIC is VPP's, see vpp-manager).
	UplinkDriver string `yaml:"uplinkDriver"`
	// PodDriver is "af_xdp" or "af_packet".
	PodDriver string `yaml:"podDriver"`
	// UplinkRxMode and PodRxMode are when VPP looks for packets: "interrupt",
	// "adaptive" or "polling". A pod's annotation comes before PodRxMode.
	UplinkRxMode dataplane.RxMode `yaml:"uplinkRxMode"`
	PodRxMode    dataplane.RxMode `yaml:"podRxMode"`
	// KernelFlows is how many connections the shim remembers that go through
	// the kernel (services, the world outside). What is
	// remembered is taken over in the size that it has: another size holds
	// when no link carries the shim any more, at the latest after a reboot.
	KernelFlows int `yaml:"kernelFlows"`
	// FailClosed: pods under a policy that only VPP enforces get no traffic
	// while VPP is down. Without such policies it changes nothing.
	FailClosed bool `yaml:"failClosed"`
}

// Drivers by which VPP has a link.
const (
	DriverAFXDP    = "af_xdp"
	DriverAFPacket = "af_packet"
	DriverDPDK     = "dpdk"
)

// EncapOverhead is what a policy of one segment costs in bytes: an IPv6 header
// and no SRH (H.Encaps.Red, RFC 8986 §5.2).
const EncapOverhead = 40

// MinPodMTU is IPv6's minimum link MTU (RFC 8200 §5).
const MinPodMTU = 1280

// Default is a usable configuration for a machine with nothing special.
func Default() Config {
	host, _ := os.Hostname()
	return Config{
		NodeName:       host,
		Dataplane:      DataplaneLinux,
		SourceDir:      "/etc/sidewinder/objects",
		StateDir:       "/var/lib/sidewinder",
		Socket:         cniapi.DefaultSocket,
		Block:          "fcbb:bb00::/32",
		ResyncInterval: 30 * time.Second,
		ReleaseGrace:   10 * time.Minute,
		LogLevel:       "info",
		VPP: VPP{
			Socket:       "/run/vpp/api.sock",
			UplinkDriver: DriverAFXDP,
			PodDriver:    DriverAFXDP,
			UplinkRxMode: dataplane.RxInterrupt,
			PodRxMode:    dataplane.RxInterrupt,
			KernelFlows:  65536,
		},
	}
}

// Load reads a YAML file over the defaults and validates the result. An empty
// path gives the defaults. All that is wrong is told at once, with line and
// field: unknown fields, values of a wrong type, and values that cannot be.
func Load(path string) (Config, error) {
	c := Default()
	if path == "" {
		return c, c.Validate()
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	var errs []error
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	var wrong *yaml.TypeError
	switch err := dec.Decode(&c); {
	case err == nil || errors.Is(err, io.EOF):
	case errors.As(err, &wrong):
		for _, text := range wrong.Errors {
			errs = append(errs, fmt.Errorf("%s: %s", path, text))
		}
	default:
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		errs = append(errs, fmt.Errorf("%s: has more than one document; put everything into the first", path))
	}
	var tree yaml.Node
	if err := yaml.Unmarshal(raw, &tree); err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	for _, e := range c.check() {
		errs = append(errs, fmt.Errorf("%s:%d: %w", path, lineOf(&tree, e.field), e))
	}
	return c, errors.Join(errs...)
}

// lineOf finds where a field like vpp.socket or uplinks[1] stands; 1 when the
// file does not name it.
func lineOf(n *yaml.Node, field string) int {
	line := 1
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		n = n.Content[0]
	}
	name, _, _ := strings.Cut(field, "[")
	for part := range strings.SplitSeq(name, ".") {
		found := false
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == part {
				line, n, found = n.Content[i].Line, n.Content[i+1], true
				break
			}
		}
		if !found {
			return line
		}
	}
	return line
}

// fieldError is a field with what is wrong with it and what to do.
type fieldError struct{ field, reason string }

func (e *fieldError) Error() string { return e.field + ": " + e.reason }

// Validate checks every field, reports all that is wrong, and fills the parsed
// forms.
func (c *Config) Validate() error {
	var errs []error
	for _, e := range c.check() {
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

func (c *Config) check() []*fieldError {
	var errs []*fieldError
	bad := func(field, format string, args ...any) {
		errs = append(errs, &fieldError{field, fmt.Sprintf(format, args...)})
	}
	if c.NodeName == "" {
		bad("nodeName", "is empty; set it to the node's name in the cluster")
	}
	if c.Dataplane != DataplaneLinux && c.Dataplane != DataplaneVPP {
		bad("dataplane", "%q is not one of %q, %q", c.Dataplane, DataplaneLinux, DataplaneVPP)
	}
	for _, f := range [][2]string{{"sourceDir", c.SourceDir}, {"stateDir", c.StateDir}, {"socket", c.Socket}, {"vpp.socket", c.VPP.Socket}} {
		if !filepath.IsAbs(f[1]) {
			bad(f[0], "%q is not an absolute path", f[1])
		}
	}
	c.BlockPrefix, c.EncapSourceAddr = netip.Prefix{}, netip.Addr{}
	if p, err := netip.ParsePrefix(c.Block); err != nil {
		bad("block", "%v; give an IPv6 /32, the same on all nodes", err)
	} else if !p.Addr().Is6() || p.Bits() != 32 || p.Masked() != p {
		bad("block", "%s is not an IPv6 /32 with no bits set beyond it (F3216)", c.Block)
	} else {
		c.BlockPrefix = p
	}
	if c.EncapSource != "" {
		if a, err := netip.ParseAddr(c.EncapSource); err != nil {
			bad("encapSource", "%v; give an IPv6 address of this node, or leave it out", err)
		} else if !a.Is6() || a.Is4In6() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() || a.Zone() != "" {
			bad("encapSource", "%s is not a global or unique local IPv6 unicast address", a)
		} else {
			c.EncapSourceAddr = a
		}
	}
	if c.PodMTU != 0 && (c.PodMTU < MinPodMTU || c.PodMTU > 65535-EncapOverhead) {
		bad("podMTU", "%d is not 0 or between %d and %d; leave it out for what fits the uplink", c.PodMTU, MinPodMTU, 65535-EncapOverhead)
	}
	if c.ResyncInterval < time.Second {
		bad("resyncInterval", "%s is shorter than 1s; leave it out for 30s", c.ResyncInterval)
	}
	if c.ReleaseGrace < time.Second {
		bad("releaseGrace", "%s is shorter than 1s; leave it out for 10m", c.ReleaseGrace)
	}
	if _, err := logrus.ParseLevel(c.LogLevel); err != nil {
		bad("logLevel", "%v; use error, warning, info or debug", err)
	}
	seen := map[string]bool{}
	for i, u := range c.Uplinks {
		if u == "" || len(u) > 15 || seen[u] {
			bad(fmt.Sprintf("uplinks[%d]", i), "%q is empty, too long for an interface name, or repeated", u)
		}
		seen[u] = true
	}
	oneOf := func(field, value string, of ...string) {
		if !slices.Contains(of, value) {
			bad(field, "%q is not one of %q", value, of)
		}
	}
	oneOf("vpp.uplinkDriver", c.VPP.UplinkDriver, DriverAFXDP, DriverAFPacket, DriverDPDK)
	oneOf("vpp.podDriver", c.VPP.PodDriver, DriverAFXDP, DriverAFPacket)
	for field, m := range map[string]dataplane.RxMode{"vpp.uplinkRxMode": c.VPP.UplinkRxMode, "vpp.podRxMode": c.VPP.PodRxMode} {
		oneOf(field, string(m), string(dataplane.RxInterrupt), string(dataplane.RxAdaptive), string(dataplane.RxPolling))
	}
	if c.VPP.KernelFlows < 1024 || c.VPP.KernelFlows > 1<<22 {
		bad("vpp.kernelFlows", "%d is not between 1024 and %d; leave it out for 65536", c.VPP.KernelFlows, 1<<22)
	}
	return errs
}
