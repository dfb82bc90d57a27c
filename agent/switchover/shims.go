package switchover

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// Shims is the Carrier on links that carry the XDP shim.
type Shims struct {
	log    logrus.FieldLogger
	tables *xdp.Tables
	// shims by link name, with the role that they are bound to.
	shims map[string]*bound
	// swept: links that an agent before this one left open have been shut.
	swept bool
}

type bound struct {
	*xdp.Shim
	role xdp.Role
}

// NewShims makes the shared tables, and takes over the record of the kernel's
// flows from the shims of an agent before this one. The error is
// xdp.ErrUnsupported where the kernel lacks what they need.
func NewShims(o xdp.TablesOptions, log logrus.FieldLogger) (*Shims, error) {
	t, err := xdp.NewTables(o)
	if err != nil {
		return nil, err
	}
	s := &Shims{log: log, tables: t, shims: map[string]*bound{}}
	s.adopt()
	return s, nil
}

// adopt takes over the record of the kernel's flows that an earlier agent's
// tables have: connections live longer than agents. It is done at once, because a
// VPP that starts anew replaces the shims, and the record goes with the last.
func (s *Shims) adopt() {
	warn := func(err error) {
		s.log.WithError(err).Warn("the record of the kernel's flows is not found everywhere: connections to services may break where VPP takes over")
	}
	all, err := xdp.FindAll()
	if err != nil {
		warn(err)
	}
	found := false
	for _, shim := range all {
		if !found {
			if found, err = s.tables.AdoptFlows(shim); err != nil {
				warn(err)
			}
		}
		_ = shim.Close()
	}
}

// Set implements Carrier.
func (s *Shims) Set(t Tables) error {
	if err := s.tables.SetUplink(t.Uplink); err != nil {
		return fmt.Errorf("uplinks' table: %w", err)
	}
	if err := s.tables.SetPods(t.Pods); err != nil {
		return fmt.Errorf("pods' table: %w", err)
	}
	return nil
}

// Bind implements Carrier.
func (s *Shims) Bind(l Links) { s.bindAll(rolesOf(l)) }

func rolesOf(l Links) map[string]xdp.Role {
	roles := make(map[string]xdp.Role, len(l.Uplinks)+len(l.Pods))
	for _, name := range l.Pods {
		roles[name] = xdp.RolePod
	}
	for _, name := range l.Uplinks {
		roles[name] = xdp.RoleUplink
	}
	return roles
}

// Open implements Carrier.
func (s *Shims) Open(l Links) map[string]error {
	roles := rolesOf(l)
	there, errs := s.bindAll(roles)
	if there == nil {
		return errs
	}
	for name := range there {
		if errs[name] == nil {
			if err := s.shims[name].open(); err != nil {
				errs[name] = err
			}
		}
	}
	for name, b := range s.shims {
		if there[name] {
			continue
		}
		if _, wanted := roles[name]; !wanted {
			// It is nobody's pod any more; the link may live on.
			_ = set(b.Shim, xdp.ModeKernel)
		}
		_ = b.Close()
		delete(s.shims, name)
	}
	return errs
}

// bindAll finds the shims of links and binds them to the tables; there are the
// links that exist, nil where that is not known. The errors are by link.
func (s *Shims) bindAll(roles map[string]xdp.Role) (there map[string]bool, errs map[string]error) {
	errs = map[string]error{}
	all, err := netlink.LinkList()
	if err != nil {
		for name := range roles {
			errs[name] = fmt.Errorf("listing links: %w", err)
		}
		return nil, errs
	}
	there = make(map[string]bool, len(roles))
	fresh := map[string]*bound{}
	for _, link := range all {
		a := link.Attrs()
		role, ours := roles[a.Name]
		if !ours {
			continue
		}
		there[a.Name] = true
		program := uint32(0)
		if a.Xdp != nil && a.Xdp.Attached {
			program = a.Xdp.ProgId
		}
		b, err := s.find(a.Name, a.Index, program)
		switch {
		case err != nil:
			errs[a.Name] = err
		case b.role != role:
			fresh[a.Name] = b
		}
	}
	maps.Copy(errs, s.bind(fresh, roles))
	return there, errs
}

// find gives the shim that is on a link now.
func (s *Shims) find(name string, index int, program uint32) (*bound, error) {
	if b := s.shims[name]; b != nil {
		if b.ProgramID() == program && b.LinkIndex() == index {
			return b, nil
		}
		_ = b.Close()
		delete(s.shims, name)
	}
	shim, err := xdp.Find(index)
	if err != nil {
		return nil, fmt.Errorf("has no shim, so the kernel gets all its packets: %w", err)
	}
	b := &bound{Shim: shim}
	s.shims[name] = b
	return b, nil
}

// binders is how many links are bound at the same time: for each the kernel waits
// for the packets under way, tens of milliseconds that cost nothing.
const binders = 32

// bind gives the tables to shims that do not have them. The errors are by link.
func (s *Shims) bind(fresh map[string]*bound, roles map[string]xdp.Role) map[string]error {
	errs := map[string]error{}
	var mu sync.Mutex
	var work errgroup.Group
	work.SetLimit(binders)
	for name, b := range fresh {
		work.Go(func() error {
			err := b.Bind(roles[name], s.tables)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs[name] = fmt.Errorf("binding the tables to its shim: %w", err)
				return nil
			}
			b.role = roles[name]
			return nil
		})
	}
	_ = work.Wait() // errs has all
	return errs
}

// open lets VPP have the link's packets.
func (b *bound) open() error {
	mode, err := b.Mode()
	switch {
	case err != nil:
		return fmt.Errorf("reading the mode of its shim: %w", err)
	case mode == xdp.ModeHeld:
		return errHeld
	case mode == xdp.ModeVPP:
		return nil
	}
	return set(b.Shim, xdp.ModeVPP)
}

var errHeld = errors.New("vpp-manager holds its packets in the kernel")

func set(shim *xdp.Shim, m xdp.Mode) error {
	if err := shim.SetMode(m); err != nil {
		return fmt.Errorf("setting the mode of its shim to %s: %w", m, err)
	}
	return nil
}

// Shut implements Carrier. What is held stays so.
func (s *Shims) Shut() error {
	var errs []error
	if !s.swept {
		// An agent before this one left links open that this one has not
		// looked at. Those that are found are shut also where others are not.
		all, err := xdp.FindAll()
		if err != nil {
			errs = append(errs, fmt.Errorf("looking for shims: %w", err))
		}
		for _, shim := range all {
			if old := s.shims[shim.LinkName()]; old != nil {
				_ = shim.Close()
				continue
			}
			s.shims[shim.LinkName()] = &bound{Shim: shim}
		}
		s.swept = err == nil
	}
	for name, b := range s.shims {
		mode, err := b.Mode()
		if err == nil && mode == xdp.ModeVPP {
			err = set(b.Shim, xdp.ModeKernel)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("link %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// RemoveShims gives all links to the kernel and takes the shims off them, which
// costs TCP its segmentation offload on veths: for an agent that uses none, after
// one that did. VPP may run on, with a state that nobody renews.
func RemoveShims() error {
	all, err := xdp.FindAll()
	errs := []error{err}
	for _, shim := range all {
		errs = append(errs, set(shim, xdp.ModeKernel), shim.Detach(), shim.Close())
	}
	return errors.Join(errs...)
}

// Links implements Carrier.
func (s *Shims) Links() []status.Link {
	out := make([]status.Link, 0, len(s.shims))
	for _, name := range slices.Sorted(maps.Keys(s.shims)) {
		l := status.Link{Name: name}
		if mode, err := s.shims[name].Mode(); err == nil {
			l.Mode = mode.String()
		}
		if n, err := s.shims[name].Counters(); err == nil {
			l.Packets = n
		}
		out = append(out, l)
	}
	return out
}

// Close implements Carrier.
func (s *Shims) Close() error {
	errs := []error{s.tables.Close()}
	for _, b := range s.shims {
		errs = append(errs, b.Close())
	}
	clear(s.shims)
	return errors.Join(errs...)
}
