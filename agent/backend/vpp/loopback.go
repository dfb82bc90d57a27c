package vpp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sidewinder-net/sidewinder/binapi"
)

// Our loopback is loop8383, or the first number after it that nobody uses: one
// that was made and not tagged, as its maker ended in between, is found again.
const (
	firstLoopback = 8383
	loopbackTries = 16
)

// ensureLoopback makes the loopback: it holds the node's own addresses, which
// the pods' interfaces borrow, and the marks of the settings. fatal is about the
// connection; err says why VPP does not have one.
func (a *applier) ensureLoopback() (fatal, err error) {
	err = a.makeLoopback()
	switch {
	case err == nil:
		return nil, nil
	case errors.Is(err, binapi.ErrDisconnected) || a.ctx.Err() != nil:
		return err, nil
	}
	return nil, fmt.Errorf("loopback: %w", err)
}

func (a *applier) makeLoopback() error {
	if a.view.lo == nil {
		index, err := a.claimLoopback()
		if err != nil {
			return err
		}
		t := tag{role: roleLoopback, name: loName}
		if err := do(a.ctx, a.c, binapi.InterfaceSetTag(index, t.String())); err != nil {
			return err
		}
		a.view.lo = &held{Interface: binapi.Interface{Index: index}, tag: t}
	}
	if a.view.lo.AdminUp {
		return nil
	}
	if err := do(a.ctx, a.c, binapi.InterfaceSetUp(a.view.lo.Index, true)); err != nil {
		return err
	}
	a.view.lo.AdminUp = true
	return nil
}

// claimLoopback finds a loopback of ours that has no tag yet, or makes one.
func (a *applier) claimLoopback() (binapi.Index, error) {
	var refused error
	for n := uint32(firstLoopback); n < firstLoopback+loopbackTries; n++ {
		name := binapi.LoopbackName(n)
		if i := slices.IndexFunc(a.view.others, func(o binapi.Interface) bool { return o.Name == name }); i >= 0 {
			ours, err := a.untouched(a.view.others[i])
			if err != nil {
				return 0, err
			}
			if ours {
				return a.view.others[i].Index, nil
			}
			continue
		}
		var index binapi.Index
		err := do(a.ctx, a.c, binapi.LoopbackCreate(n, &index))
		var retval *binapi.RetvalError
		if !errors.As(err, &retval) {
			return index, err
		}
		refused = fmt.Errorf("%s: %w", name, err)
	}
	return 0, errors.Join(fmt.Errorf("VPP's %s to %s are all in use; remove one of them in VPP",
		binapi.LoopbackName(firstLoopback), binapi.LoopbackName(firstLoopback+loopbackTries-1)), refused)
}

// untouched: nobody has done anything with the interface since it was made.
func (a *applier) untouched(i binapi.Interface) (bool, error) {
	if i.Tag != "" || i.AdminUp {
		return false, nil
	}
	var addresses []netip.Prefix
	if err := do(a.ctx, a.c, binapi.InterfaceAddresses(i.Index, false, &addresses), binapi.InterfaceAddresses(i.Index, true, &addresses)); err != nil {
		return false, err
	}
	return len(addresses) == 0, nil
}
