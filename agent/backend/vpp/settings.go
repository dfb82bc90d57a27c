package vpp

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// defaultHopLimit is VPP's own outer hop limit.
const defaultHopLimit = 64

// settings sets them one by one: there are few, and some take several steps.
func (a *applier) settings(changes []dataplane.Change) error {
	for _, ch := range changes {
		fatal, err := a.setting(ch)
		if fatal != nil {
			return fatal
		}
		a.fail(ch, err)
	}
	return nil
}

func (a *applier) setting(ch dataplane.Change) (fatal, err error) {
	value := ""
	if ch.Op != dataplane.OpDelete {
		value = string(ch.New.(dataplane.Setting))
	} else if a.view.lo == nil {
		return nil, nil // nothing is marked as set
	}
	switch key := ch.Key.(dataplane.SettingKey); key {
	case dataplane.SettingEncapSource:
		return a.encapSource(value)
	case dataplane.SettingEncapHopLimit:
		return a.hopLimit(value)
	case dataplane.SettingFlowLabel:
		if value == dataplane.FlowLabelInnerHash || value == "" {
			// What VPP always does: the mark alone is the setting.
			return a.marked(flagFlowLabel, value != "", nil)
		}
		return nil, fmt.Errorf("%w: %q: VPP always writes %q", dataplane.ErrUnsupported, value, dataplane.FlowLabelInnerHash)
	case dataplane.SettingFlowHash:
		return a.flowHash(value)
	default:
		if ch.Op == dataplane.OpDelete {
			return nil, nil
		}
		return nil, fmt.Errorf("%w: setting %q", dataplane.ErrUnsupported, key)
	}
}

// marked runs a change of a setting between taking its mark off and putting it
// on, so that a change that was cut short is seen as not made.
func (a *applier) marked(flag rune, on bool, change func() (fatal, err error)) (fatal, err error) {
	if fatal, err := a.ensureLoopback(); fatal != nil || err != nil {
		return fatal, err
	}
	if change != nil {
		if fatal := a.mark(flag, false); fatal != nil {
			return fatal, nil
		}
		if fatal, err := change(); fatal != nil || err != nil {
			return fatal, err
		}
	}
	return a.mark(flag, on), nil
}

func (a *applier) mark(flag rune, on bool) error {
	t := a.view.lo.tag.with(flag, on)
	if t == a.view.lo.tag {
		return nil
	}
	if err := do(a.ctx, a.c, binapi.InterfaceSetTag(a.view.lo.Index, t.String())); err != nil {
		return err
	}
	a.view.lo.tag = t
	return nil
}

// encapSource sets the outer source address, also of the policies that are
// there. The empty value is VPP's default, none.
func (a *applier) encapSource(value string) (fatal, err error) {
	addr := netip.IPv6Unspecified()
	if value != "" {
		if addr, err = netip.ParseAddr(value); err != nil || !addr.Is6() || addr.Zone() != "" {
			return nil, fmt.Errorf("%w: %q is not an IPv6 address", dataplane.ErrUnsupported, value)
		}
	}
	// VPP tells the source of a policy's newest list alone. Where a change was
	// cut short (the mark is off), or is to be made, older lists may have any:
	// all policies are made anew. Otherwise only those that somebody changed.
	var now settingsText
	if err := do(a.ctx, a.c, readSettings(&now)...); err != nil {
		return err, nil
	}
	global, perr := netip.ParseAddr(lastWord(now.encapSource))
	inForce := a.view.lo != nil && a.view.lo.tag.has(flagEncapSource) && perr == nil && global == addr
	return a.marked(flagEncapSource, value != "", func() (error, error) {
		if fatal, err := a.do(binapi.SRSetEncapSource(addr)); fatal != nil || err != nil {
			return fatal, err
		}
		if !inForce {
			return a.renewPolicies(nil)
		}
		var policies []binapi.Policy
		if err := do(a.ctx, a.c, binapi.SRPolicies(&policies)); err != nil {
			return err, nil
		}
		stale := map[netip.Addr]bool{}
		for _, p := range policies {
			if a.own(p.BSID) && (p.EncapSource != addr || twice(p)) {
				stale[p.BSID] = true
			}
		}
		return a.renewPolicies(stale)
	})
}

// hopLimit sets the outer hop limit, also of the policies that are there.
func (a *applier) hopLimit(value string) (fatal, err error) {
	n := uint64(defaultHopLimit)
	if value != "" {
		if n, err = strconv.ParseUint(value, 10, 8); err != nil || n == 0 {
			return nil, fmt.Errorf("%w: %q is not a hop limit, 1 to 255", dataplane.ErrUnsupported, value)
		}
	}
	call, err := binapi.SRSetEncapHopLimit(uint8(n))
	if err != nil {
		return nil, err
	}
	// Lists keep the limit they were made with, and VPP does not tell it: make
	// them all anew, unless this very limit is known to be in force.
	var now settingsText
	if err := do(a.ctx, a.c, readSettings(&now)...); err != nil {
		return err, nil
	}
	if a.view.lo != nil && a.view.lo.tag.has(flagHopLimit) && lastWord(now.hopLimit) == value {
		return nil, nil
	}
	return a.marked(flagHopLimit, value != "", func() (error, error) {
		if fatal, err := a.do(call); fatal != nil || err != nil {
			return fatal, err
		}
		return a.renewPolicies(nil)
	})
}

// flowHashFields are the names, in the state and on VPP's command line.
func flowHashFields() map[string]binapi.FlowHash {
	return map[string]binapi.FlowHash{
		"src": binapi.FlowHashSrc, "dst": binapi.FlowHashDst, "proto": binapi.FlowHashProto,
		"sport": binapi.FlowHashSrcPort, "dport": binapi.FlowHashDstPort,
		"flowlabel": binapi.FlowHashFlowLabel, "reverse": binapi.FlowHashReverse, "symmetric": binapi.FlowHashSymmetric,
	}
}

// flowHash sets the ECMP hash of the main IPv6 table.
func (a *applier) flowHash(value string) (fatal, err error) {
	hash := binapi.FlowHashDefault
	if value != "" {
		hash = 0
		names := flowHashFields()
		for _, f := range strings.Split(value, ",") {
			bit, ok := names[f]
			if !ok {
				return nil, fmt.Errorf("%w: %q has no flow hash field %q", dataplane.ErrUnsupported, value, f)
			}
			hash |= bit
		}
	}
	return a.marked(flagFlowHash, value != "", func() (error, error) {
		return a.do(binapi.IPSetFlowHash(0, true, hash))
	})
}
