package vpp

import (
	"strconv"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// tagPrefix begins the tag of every interface of ours.
const tagPrefix = "sidewinder:"

// roleLoopback is the role, in a tag, of the loopback that this backend makes.
const roleLoopback = "lo"

// roleParked is the role, in a tag, of an interface on an uplink that is not in
// use. VPP's af_packet takes the kernel's link down with its own interface, and
// so it cannot be removed without cutting off the host: it is turned off and
// kept for the next time.
const roleParked = "parked"

// tag is the memory that VPP keeps for us with an interface. Its text is
// "sidewinder:<role>:<linux name>:<ifindex>:<flags>:<rx>:<detail>", at most 63
// bytes: with the longest of all others, 8 are left for detail. What is empty
// at the end is left out.
type tag struct {
	role string
	// name of the kernel link.
	name string
	// ifindex of the kernel link at the time: another link that later gets
	// the same name is not the one that VPP holds.
	ifindex int
	// flags, one letter each, sorted.
	flags string
	// rx is how it was asked to receive.
	rx dataplane.Rx
	// detail is its driver's, without colons.
	detail string
}

// Flags of an interface.
const (
	// What was left as it is.
	flagMACAsIs = 'a'
	flagMTUAsIs = 't'
	// flagRxRefused: VPP's driver does not have the rx mode that was asked for.
	flagRxRefused = 'r'
)

// Flags of the loopback: the settings that are in force. VPP itself does not
// tell a default from a value that was set to the same.
const (
	flagEncapSource = 's'
	flagHopLimit    = 'h'
	flagFlowLabel   = 'l'
	flagFlowHash    = 'f'
)

func (t tag) String() string {
	s := tagPrefix + t.role + ":" + t.name + ":" + strconv.Itoa(t.ifindex) + ":" + t.flags
	if rx := formatRx(t.rx); rx != "" || t.detail != "" {
		s += ":" + rx
	}
	if t.detail != "" {
		s += ":" + t.detail
	}
	return s
}

func (t tag) has(flag rune) bool { return strings.ContainsRune(t.flags, flag) }

// with returns the tag with a flag set or cleared.
func (t tag) with(flag rune, on bool) tag {
	var out strings.Builder
	for _, f := range "aflhrst" {
		if f == flag && on || f != flag && t.has(f) {
			out.WriteRune(f)
		}
	}
	t.flags = out.String()
	return t
}

// parseTag reads a tag; false means that it is not ours.
func parseTag(s string) (tag, bool) {
	rest, ok := strings.CutPrefix(s, tagPrefix)
	if !ok {
		return tag{}, false
	}
	parts := strings.Split(rest, ":")
	if len(parts) < 2 || parts[1] == "" {
		return tag{}, false
	}
	t := tag{role: parts[0], name: parts[1]}
	if len(parts) > 2 {
		n, err := strconv.Atoi(parts[2])
		if err != nil {
			return tag{}, false
		}
		t.ifindex = n
	}
	if len(parts) > 3 {
		t.flags = parts[3]
	}
	if len(parts) > 4 {
		var ok bool
		if t.rx, ok = parseRx(parts[4]); !ok {
			return tag{}, false
		}
	}
	if len(parts) > 5 {
		t.detail = parts[5]
	}
	return t, true
}
