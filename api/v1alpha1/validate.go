package v1alpha1

import (
	"errors"
	"fmt"
	"net/netip"

	"k8s.io/apimachinery/pkg/util/validation"
)

// FieldError is a field of an object with what is wrong with it.
//
// +kubebuilder:object:generate=false
type FieldError struct {
	// Field is the path in the object, like spec.sids[1].sid.
	Field string
	// Err is the reason; its text starts with the value where that helps.
	Err error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

func (e *FieldError) Unwrap() error { return e.Err }

// FieldErrors are all that is wrong with an object. Empty: nothing.
//
// +kubebuilder:object:generate=false
type FieldErrors []*FieldError

// Err joins the errors; nil when there are none. errors.As finds each
// *FieldError.
func (e FieldErrors) Err() error {
	errs := make([]error, len(e))
	for i := range e {
		errs[i] = e[i]
	}
	return errors.Join(errs...)
}

// Add appends an error about a field.
func (e *FieldErrors) Add(field, format string, args ...any) {
	*e = append(*e, &FieldError{Field: field, Err: fmt.Errorf(format, args...)})
}

// AddErr appends err about a field, unless it is nil.
func (e *FieldErrors) AddErr(field string, err error) {
	if err != nil {
		*e = append(*e, &FieldError{Field: field, Err: err})
	}
}

// CheckName adds an error unless name is a DNS-1123 subdomain, as the names of
// nodes and of cluster-wide objects are.
func (e *FieldErrors) CheckName(field, name string) {
	if name == "" {
		e.Add(field, "is missing")
		return
	}
	if msgs := validation.IsDNS1123Subdomain(name); len(msgs) > 0 {
		e.Add(field, "%q is not a name: %s", name, msgs[0])
	}
}

// Behaviours that peers can use, by the names of RFC 8986 and RFC 9800.
const (
	BehaviourUN  = "uN"
	BehaviourDT4 = "End.DT4"
	BehaviourDT6 = "End.DT6"
)

// Validate says what is wrong with the object taken alone.
func (l *SRv6Locator) Validate() FieldErrors {
	var errs FieldErrors
	errs.CheckName("metadata.name", l.Name)
	p, err := ParseLocator(l.Spec.Locator)
	errs.AddErr("spec.locator", err)
	if err == nil && l.Name != "" && LocatorName(p) != l.Name {
		errs.Add("metadata.name", "%q is not the name of locator %s; write %q", l.Name, p, LocatorName(p))
	}
	errs.CheckName("spec.nodeName", l.Spec.NodeName)
	return errs
}

// Validate says what is wrong with the object taken alone.
func (n *SRv6Node) Validate() FieldErrors {
	var errs FieldErrors
	errs.CheckName("metadata.name", n.Name)
	a, err := ParseAddr(n.Spec.EncapSource)
	if err == nil && (!a.Is6() || a.IsLinkLocalUnicast()) {
		err = fmt.Errorf("%q is not a global or unique local IPv6 unicast address", n.Spec.EncapSource)
	}
	errs.AddErr("spec.encapSource", err)
	locator, err := ParseLocator(n.Spec.Locator)
	errs.AddErr("spec.locator", err)
	if err == nil {
		n.validateSIDs(&errs, locator)
	}
	seen := map[netip.Prefix]int{}
	for i, s := range n.Spec.Prefixes {
		field := fmt.Sprintf("spec.prefixes[%d]", i)
		p, err := ParsePrefix(s)
		if err != nil {
			errs.AddErr(field, err)
			continue
		}
		if first, ok := seen[p]; ok {
			errs.Add(field, "%q repeats spec.prefixes[%d]", s, first)
		}
		seen[p] = i
	}
	return errs
}

func (n *SRv6Node) validateSIDs(errs *FieldErrors, locator netip.Prefix) {
	seen := map[netip.Prefix]int{}
	for i, s := range n.Spec.SIDs {
		p, err := s.Prefix()
		if err != nil {
			errs.AddErr(fmt.Sprintf("spec.sids[%d].sid", i), err)
			continue
		}
		if first, ok := seen[p]; ok {
			errs.Add(fmt.Sprintf("spec.sids[%d].sid", i), "%q repeats spec.sids[%d].sid", s.SID, first)
			continue
		}
		seen[p] = i
		switch s.Behaviour {
		case BehaviourUN:
			if p != locator {
				errs.Add(fmt.Sprintf("spec.sids[%d].sid", i), "%q is not the locator %s, as uN takes", s.SID, locator)
			}
		case BehaviourDT4, BehaviourDT6:
			if p.Bits() != 128 || !locator.Contains(p.Addr()) {
				errs.Add(fmt.Sprintf("spec.sids[%d].sid", i), "%q is not an address in the locator %s", s.SID, locator)
			}
		default:
			errs.Add(fmt.Sprintf("spec.sids[%d].behaviour", i), "%q is not one of %q, %q, %q", s.Behaviour, BehaviourUN, BehaviourDT4, BehaviourDT6)
		}
	}
}

// Prefix is the SID as a prefix: a /128 for an address, else as written.
func (s SRv6SID) Prefix() (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s.SID); err == nil {
		if !a.Is6() || a.Is4In6() || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is not an IPv6 address or prefix", s.SID)
		}
		return netip.PrefixFrom(a, 128), nil
	}
	p, err := ParsePrefix(s.SID)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not an IPv6 address or prefix", s.SID)
	}
	if !p.Addr().Is6() {
		return netip.Prefix{}, fmt.Errorf("%q is not an IPv6 address or prefix", s.SID)
	}
	return p, nil
}
