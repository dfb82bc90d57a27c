package lab

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// shownPolicy is a policy as `show sr policies` has it.
type shownPolicy struct {
	bsid netip.Addr
	// behaviour, kind and table are VPP's own words; source is the outer source
	// address, which a policy that inserts has not.
	behaviour, kind, table string
	source                 netip.Addr
	// lists are written as a status writes them: "[a b] weight 2".
	lists []string
}

// shownSteering is a row of `show sr steering-policies`. VPP does not say in
// which table a prefix is: one that is in two tables is there twice.
type shownSteering struct {
	// traffic is a prefix, or the name of an interface.
	traffic string
	bsid    netip.Addr
}

// shownSID is a SID as `show sr localsids` has it.
type shownSID struct {
	prefix netip.Prefix
	// behaviour in the words of RFC 8986; VPP's own word when it is none that
	// Sidewinder makes.
	behaviour string
	// table as VPP writes it; empty for a behaviour that has none.
	table string
	// packets that were processed without an error.
	packets uint64
}

// shownLines are the lines of what VPP shows, without the characters by which
// it moves a terminal's cursor, and without the rulers.
func shownLines(text string) []string {
	var out []string
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(strings.Map(func(r rune) rune {
			if r == '\r' || r == '\b' {
				return -1
			}
			return r
		}, line))
		if strings.Trim(line, "-=") != "" {
			out = append(out, line)
		}
	}
	return out
}

// field splits "Name: value".
func field(line string) (name, value string) {
	name, value, _ = strings.Cut(line, ":")
	return name, strings.TrimSpace(value)
}

func notUnderstood(line string) error {
	return fmt.Errorf("the line %q is not understood", line)
}

const (
	showPolicies  = "show sr policies"
	showSteering  = "show sr steering-policies"
	showLocalSIDs = "show sr localsids"
)

func parsePolicies(text string) ([]shownPolicy, error) {
	var out []shownPolicy
	for _, line := range shownLines(text) {
		if line == "SR policies:" {
			continue
		}
		if _, rest, ok := strings.Cut(line, "].-"); ok && strings.HasPrefix(strings.TrimSpace(rest), "BSID:") {
			_, value := field(rest)
			bsid, err := netip.ParseAddr(value)
			if err != nil {
				return nil, notUnderstood(line)
			}
			out = append(out, shownPolicy{bsid: bsid})
			continue
		}
		if len(out) == 0 {
			return nil, notUnderstood(line)
		}
		if err := out[len(out)-1].add(line); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// add reads one of the lines below a policy's BSID.
func (p *shownPolicy) add(line string) error {
	if strings.HasPrefix(line, "[") {
		list, err := shownList(line)
		p.lists = append(p.lists, list)
		return err
	}
	name, value := field(line)
	var err error
	switch name {
	case "Behavior":
		p.behaviour = value
	case "EncapSrcIP":
		p.source, err = netip.ParseAddr(value)
	case "Type":
		p.kind = value
	case "FIB table":
		p.table = value
	case "Segment Lists":
	default:
		return notUnderstood(line)
	}
	if err != nil {
		return notUnderstood(line)
	}
	return nil
}

// shownList reads "[4].- < a, b,  > weight: 3".
func shownList(line string) (string, error) {
	_, rest, opened := strings.Cut(line, "<")
	segments, rest, closed := strings.Cut(rest, ">")
	name, value := field(strings.TrimSpace(rest))
	weight, err := strconv.ParseUint(value, 10, 32)
	if !opened || !closed || name != "weight" || err != nil {
		return "", notUnderstood(line)
	}
	var list []string
	for _, word := range strings.Split(segments, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			continue
		}
		segment, err := netip.ParseAddr(word)
		if err != nil {
			return "", notUnderstood(line)
		}
		list = append(list, segment.String())
	}
	out := "[" + strings.Join(list, " ") + "]"
	if weight != 1 {
		out += fmt.Sprintf(" weight %d", weight)
	}
	return out, nil
}

func parseSteering(text string) ([]shownSteering, error) {
	var out []shownSteering
	for _, line := range shownLines(text) {
		words := strings.Fields(line)
		if line == "SR steering policies:" || words[0] == "Traffic" {
			continue
		}
		if len(words) != 3 || words[0] != "L3" && words[0] != "L2" {
			return nil, notUnderstood(line)
		}
		bsid, err := netip.ParseAddr(words[2])
		if err != nil {
			return nil, notUnderstood(line)
		}
		s := shownSteering{traffic: words[1], bsid: bsid}
		if words[0] == "L3" {
			prefix, err := netip.ParsePrefix(words[1])
			if err != nil {
				return nil, notUnderstood(line)
			}
			s.traffic = prefix.String()
		}
		out = append(out, s)
	}
	return out, nil
}

// behaviourOf names a behaviour by the first word that VPP has for it.
func behaviourOf(shown string) string {
	word, _, _ := strings.Cut(shown, " ")
	switch word {
	case "DT4", "DT6":
		return "End." + word
	}
	return word
}

func parseLocalSIDs(text string) ([]shownSID, error) {
	var out []shownSID
	for _, line := range shownLines(text) {
		if line == "SRv6 - My LocalSID Table:" {
			continue
		}
		name, value := field(line)
		if name == "Address" {
			prefix, err := netip.ParsePrefix(value)
			if err != nil {
				return nil, notUnderstood(line)
			}
			out = append(out, shownSID{prefix: prefix})
			continue
		}
		if len(out) == 0 {
			return nil, notUnderstood(line)
		}
		sid := &out[len(out)-1]
		switch name {
		case "Behavior":
			sid.behaviour = behaviourOf(value)
		case "Table":
			sid.table = value
		case "Good traffic":
			if _, err := fmt.Sscanf(value, "[%d packets", &sid.packets); err != nil {
				return nil, notUnderstood(line)
			}
		}
		// Other lines belong to behaviours that no status has: the behaviour
		// is the difference then.
	}
	return out, nil
}
