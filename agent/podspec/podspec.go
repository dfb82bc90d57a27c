// Package podspec reads what a pod's annotations ask of its interfaces, under
// the names and in the forms that users of Calico/VPP know. Whatever cannot be
// used is told and left at its default: an annotation never keeps a pod from
// working.
package podspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

const prefix = "cni.projectcalico.org/"

// The annotations.
const (
	// AnnotationInterfaces is a JSON object with an Interface for each of the
	// pod's interfaces by name:
	// {"eth0": {"rx": 1, "rxqsz": 1024, "rxMode": "polling"}}.
	AnnotationInterfaces = prefix + "vppInterfacesSpec"
	// AnnotationMemifPorts asks for a memif, and says which destination ports
	// go there: "tcp:4444-20000,udp:5000".
	AnnotationMemifPorts = prefix + "vppExtraMemifPorts"
	// AnnotationMemif is the memif's own Interface as a JSON object.
	AnnotationMemif = prefix + "vppExtraMemifSpec"
	// AnnotationVCL asks for VPP's host stack, which is not offered here.
	AnnotationVCL = prefix + "vppVcl"
	// AnnotationSources would allow a pod to send from foreign addresses.
	// Sources are not checked here, so it changes nothing.
	AnnotationSources = prefix + "AllowedSourcePrefixes"
)

// Limits of what can be asked for.
const (
	// MaxQueues of an interface.
	MaxQueues = 16
	// MinRing and MaxRing are the descriptors of a queue, powers of two. Each
	// takes one of the buffers that all pods of a node share; the most is
	// Calico/VPP's, unless told.
	MinRing = 256
	MaxRing = 1024
	// MaxPortRanges after those that meet have been joined.
	MaxPortRanges = 64
	// maxText bounds an annotation, in bytes.
	maxText = 16 << 10
	// memifPrefix begins the name of every memif.
	memifPrefix = "memif"
)

// Spec is what a pod asks for.
type Spec struct {
	// Interfaces by their name in the pod.
	Interfaces map[string]Interface
	// Ports go to the pod's memif. None: it has no memif.
	Ports []dataplane.PortRange
	// Memif is how the memif is made.
	Memif Interface
}

// Interface is what is asked of one interface. Zero values are the defaults.
type Interface struct {
	// Rx and Tx are numbers of queues.
	Rx, Tx uint8
	// RxRing and TxRing are the descriptors of a queue.
	RxRing, TxRing uint16
	// RxMode is when VPP looks for packets; "" for the node's default.
	RxMode dataplane.RxMode
	// L3: IP packets without an Ethernet header, where the kind of interface
	// leaves the choice.
	L3 bool
}

// Error is a part of an annotation that cannot be used.
type Error struct{ Field, Reason, Remedy string }

func (e *Error) Error() string {
	s := e.Field + ": " + e.Reason
	if e.Remedy != "" {
		s += " (" + e.Remedy + ")"
	}
	return s
}

// Select copies the annotations that this package reads; nil when there are none.
func Select(annotations map[string]string) map[string]string {
	var out map[string]string
	for _, k := range []string{AnnotationInterfaces, AnnotationMemifPorts, AnnotationMemif, AnnotationVCL, AnnotationSources} {
		if v, ok := annotations[k]; ok {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out
}

// Parse reads a pod's annotations. The errors are all that could not be used, in
// a fixed order; Spec is the rest.
func Parse(annotations map[string]string) (Spec, []*Error) {
	var p parser
	p.interfaces(annotations)
	p.ports(annotations)
	p.memif(annotations)
	if v, ok := annotations[AnnotationVCL]; ok && v != "disable" {
		p.bad(field(AnnotationVCL), "remove it; applications use the kernel's sockets, or a memif ("+AnnotationMemifPorts+")",
			"VPP's host stack is not offered")
	}
	return p.spec, p.errs
}

type parser struct {
	spec Spec
	errs []*Error
}

func (p *parser) bad(field, remedy, format string, args ...any) {
	p.errs = append(p.errs, &Error{Field: field, Reason: fmt.Sprintf(format, args...), Remedy: remedy})
}

// field is an annotation's place in the pod's object.
func field(annotation string, path ...string) string {
	s := "metadata.annotations[" + annotation + "]"
	for _, part := range path {
		s += "." + part
	}
	return s
}

func (p *parser) interfaces(annotations map[string]string) {
	text, ok := annotations[AnnotationInterfaces]
	if !ok {
		return
	}
	members, err := object(text)
	if err != nil {
		p.bad(field(AnnotationInterfaces), `write a JSON object by interface, such as {"eth0": {"rx": 1}}`, "%v", err)
		return
	}
	for _, m := range members {
		if problem := badName(m.key); problem != "" {
			p.bad(field(AnnotationInterfaces), "name the pod's interface, such as eth0", "%.64q %s", m.key, problem)
			continue
		}
		i, ok := p.one(AnnotationInterfaces, m.value, m.key)
		if !ok {
			continue
		}
		if p.spec.Interfaces == nil {
			p.spec.Interfaces = map[string]Interface{}
		}
		p.spec.Interfaces[m.key] = i
	}
}

func (p *parser) ports(annotations map[string]string) {
	text, ok := annotations[AnnotationMemifPorts]
	if !ok {
		return
	}
	const remedy = "write protocols and ports, such as tcp:4444-20000,udp:5000"
	if len(text) > maxText {
		p.bad(field(AnnotationMemifPorts), remedy, "is longer than %d bytes", maxText)
		return
	}
	ranges, err := dataplane.ParsePorts(text)
	switch {
	case err != nil:
		p.bad(field(AnnotationMemifPorts), remedy, "%v", err)
	case len(ranges) > MaxPortRanges:
		p.bad(field(AnnotationMemifPorts), "join ranges", "has %d ranges, more than %d", len(ranges), MaxPortRanges)
	default:
		p.spec.Ports = ranges
	}
}

// memif finds what is asked of the memif: in its own annotation, else under its
// name among the interfaces.
func (p *parser) memif(annotations map[string]string) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(p.spec.Interfaces)) {
		if strings.HasPrefix(name, memifPrefix) {
			names = append(names, name)
		}
	}
	text, own := annotations[AnnotationMemif]
	_, asked := annotations[AnnotationMemifPorts]
	switch {
	case !asked:
		const remedy = "say with " + AnnotationMemifPorts + " which ports go to the memif"
		if own {
			p.bad(field(AnnotationMemif), remedy, "the pod has no memif")
		}
		for _, name := range names {
			p.bad(field(AnnotationInterfaces, name), remedy, "the pod has no memif")
		}
	case own:
		p.spec.Memif, _ = p.one(AnnotationMemif, text)
		for _, name := range names {
			p.bad(field(AnnotationInterfaces, name), "remove one of the two", "%s says the same", AnnotationMemif)
		}
	case len(names) > 0:
		p.spec.Memif = p.spec.Interfaces[names[0]]
		for _, name := range names[1:] {
			p.bad(field(AnnotationInterfaces, name), "remove it", "a pod has one memif, and %s is taken for it", names[0])
		}
	}
	for _, name := range names {
		delete(p.spec.Interfaces, name)
	}
}

// badName says what is wrong with an interface's name, by the kernel's rules
// (dev_valid_name).
func badName(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > 15:
		return "is longer than 15 bytes"
	case s == ".", s == "..", strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r == 0x7f }):
		return "is not an interface's name"
	}
	return ""
}
