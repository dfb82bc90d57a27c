package vpp

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// overlay is which packets VPP takes out of the wires between its own NICs and
// the host: those to the locators of its SIDs. While VPP has no SIDs, they go to
// the host, whose kernel has them too. One classify table serves all NICs.
type overlay struct {
	b     *Backend
	c     *binapi.Conn
	table binapi.ClassifyTable
}

// takeOverlay brings the table in line with VPP's SIDs and interfaces. Its
// error is about the connection; a refusal is noted for each uplink.
func (a *applier) takeOverlay() error {
	if a.opts.UplinkDriver != DriverDPDK {
		return nil
	}
	o := overlay{b: a.Backend, c: a.c}
	err := o.sync(a.ctx, a.view)
	if err == nil {
		var interfaces []binapi.Interface
		if err = do(a.ctx, a.c, binapi.Interfaces(&interfaces)); err == nil {
			err = a.setFallback(interfaces)
		}
	}
	if err != nil && (errors.Is(err, binapi.ErrDisconnected) || a.ctx.Err() != nil) {
		return err
	}
	for _, h := range uplinksOf(a.view) {
		a.fail(dataplane.Change{Op: dataplane.OpUpdate, Key: dataplane.InterfaceKey(h.tag.name)}, err)
	}
	return nil
}

// uplinksOf are VPP's own NICs that are in use.
func uplinksOf(v *view) []held {
	var out []held
	for _, h := range v.byName {
		if h.DevType == binapi.DevTypeDPDK && h.tag.role == string(dataplane.RoleUplink) {
			out = append(out, h)
		}
	}
	return out
}

// wanted are the rules for the SIDs that VPP has.
func (o *overlay) wanted(ctx context.Context, v *view) ([]binapi.Taking, error) {
	var sids []binapi.LocalSID
	if err := do(ctx, o.c, binapi.SRLocalSIDs(&sids)); err != nil {
		return nil, err
	}
	var out []binapi.Taking
	for _, s := range sids {
		if !o.b.own(s.SID) {
			continue
		}
		locator := netip.PrefixFrom(s.SID, binapi.TakePrefixBits).Masked()
		for _, h := range uplinksOf(v) {
			if k := (binapi.Taking{MAC: h.MAC, Prefix: locator}); !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
	}
	return out, nil
}

// read finds the table, if it is there, and its rules.
func (o *overlay) read(ctx context.Context) ([]binapi.Taking, error) {
	o.table = binapi.NoClassifyTable
	var tables []binapi.ClassifyTable
	if err := do(ctx, o.c, binapi.ClassifyTables(&tables)); err != nil {
		return nil, err
	}
	for _, t := range tables {
		var is bool
		if err := do(ctx, o.c, binapi.TakeTableIs(t, &is)); err != nil {
			return nil, err
		}
		if is {
			o.table = t
			var have []binapi.Taking
			return have, do(ctx, o.c, binapi.Takings(t, &have))
		}
	}
	return nil, nil
}

func (o *overlay) sync(ctx context.Context, v *view) error {
	have, err := o.read(ctx)
	if err != nil {
		return err
	}
	want, err := o.wanted(ctx, v)
	if err != nil {
		return err
	}
	var calls []*binapi.Call
	if o.table == binapi.NoClassifyTable {
		if len(want) == 0 {
			return nil
		}
		if err := do(ctx, o.c, binapi.TakeTableAdd(&o.table)); err != nil {
			return err
		}
	}
	for _, k := range want {
		if !slices.Contains(have, k) {
			calls = append(calls, binapi.TakingAdd(o.table, k))
		}
	}
	for _, k := range have {
		if !slices.Contains(want, k) {
			calls = append(calls, binapi.TakingDelete(o.table, k))
		}
	}
	// VPP does not tell which table an interface has.
	for _, h := range uplinksOf(v) {
		calls = append(calls, binapi.InterfaceSetTake(h.Index, o.table))
	}
	return do(ctx, o.c, calls...)
}
