package fabric

import (
	"errors"
	"fmt"
	"net/netip"
)

// spineOutsideAddr is the first spine's address on the link to the outside.
func spineOutsideAddr() netip.Addr { return netip.MustParseAddr("2001:db8:53::1") }

func outsidePrefixes() []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(OutsideAddr(), 64).Masked(),
		netip.PrefixFrom(OutsideAddr4(), 32),
	}
}

// AddOutside makes the namespace OutsideName: a host behind the first spine that
// is no node of the cluster. It and the nodes know the way to each other; nobody
// but the nodes knows of pods.
func (f *Fabric) AddOutside() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.outside {
		return fmt.Errorf("%s: is already in the fabric", OutsideName)
	}
	if err := f.plain(OutsideName); err != nil {
		return err
	}
	f.outside = true
	if err := f.wire(OutsideName, UplinkName, OutsideAddr(), SpineName(1), spineOutsidePort, spineOutsideAddr()); err != nil {
		return err
	}
	if err := f.address(OutsideName, UplinkName, netip.PrefixFrom(OutsideAddr4(), 32)); err != nil {
		return err
	}
	for _, all := range []netip.Addr{netip.IPv6Unspecified(), netip.IPv4Unspecified()} {
		if err := f.viaGateway(OutsideName, netip.PrefixFrom(all, 0), UplinkName, spineOutsideAddr()); err != nil {
			return err
		}
	}
	if err := f.viaGateway(SpineName(1), netip.PrefixFrom(OutsideAddr4(), 32), spineOutsidePort, OutsideAddr()); err != nil {
		return err
	}
	var errs []error
	for node := range f.nodes {
		errs = append(errs, f.routeOutside(node))
	}
	return errors.Join(errs...)
}

// routeOutside tells a node's ToR the way to the outside.
func (f *Fabric) routeOutside(node int) error {
	_, spine := linkAddrs(node, 1)
	var errs []error
	for _, p := range outsidePrefixes() {
		errs = append(errs, f.viaGateway(TorName(node), p, torPort(1), spine))
	}
	return errors.Join(errs...)
}
