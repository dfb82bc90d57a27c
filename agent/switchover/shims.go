package switchover

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// Shims is the Carrier on links that carry the XDP shim.
type Shims struct {
	log    logrus.FieldLogger
	tables *xdp.Tables
	// adopted: the flows of an agent before this one were looked for.
	adopted bool
	// shims by link name, with the role that they are bound to.
	shims map[string]*bound
	// swept: links that an agent before this one left open have been shut.
	swept bool
}

type bound struct {
	*xdp.Shim
	role xdp.Role
}

// NewShims makes the shared tables. The error is xdp.ErrUnsupported where the
// kernel lacks what they need.
func NewShims(o xdp.TablesOptions, log logrus.FieldLogger) (*Shims, error) {
	t, err := xdp.NewTables(o)
	if err != nil {
		return nil, err
	}
	return &Shims{log: log, tables: t, shims: map[string]*bound{}}, nil
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

// Open implements Carrier.
func (s *Shims) Open(l Links) map[string]error {
	roles := make(map[string]xdp.Role, len(l.Uplinks)+len(l.Pods))
	for _, name := range l.Pods {
		roles[name] = xdp.RolePod
	}
	for _, name := range l.Uplinks {
		roles[name] = xdp.RoleUplink
	}
	errs := map[string]error{}
	all, err := netlink.LinkList()
	if err != nil {
		for name := range roles {
			errs[name] = fmt.Errorf("listing links: %w", err)
		}
		return errs
	}
	there := make(map[string]bool, len(roles))
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
		if err := s.openLink(a.Name, a.Index, program, role); err != nil {
			errs[a.Name] = err
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

// openLink lets VPP have a link's packets.
func (s *Shims) openLink(name string, index int, program uint32, role xdp.Role) error {
	b := s.shims[name]
	if b != nil && (b.ProgramID() != program || b.LinkIndex() != index) {
		_ = b.Close()
		delete(s.shims, name)
		b = nil
	}
	if b == nil {
		shim, err := xdp.Find(index)
		if err != nil {
			return fmt.Errorf("has no shim, so the kernel gets all its packets: %w", err)
		}
		b = &bound{Shim: shim}
		s.shims[name] = b
	}
	if b.role != role {
		if err := s.adopt(b.Shim); err != nil {
			return err
		}
		if err := b.Bind(role, s.tables); err != nil {
			return fmt.Errorf("binding the tables to its shim: %w", err)
		}
		b.role = role
	}
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

// adopt takes over the record of the kernel's flows that an earlier agent's
// tables have, once: connections live longer than agents.
func (s *Shims) adopt(shim *xdp.Shim) error {
	if s.adopted {
		return nil
	}
	found, err := s.tables.AdoptFlows(shim)
	if err != nil {
		return fmt.Errorf("taking over the kernel's flows from its shim: %w", err)
	}
	s.adopted = true
	if found {
		s.log.WithField("link", shim.LinkName()).Debug("took over the record of the kernel's flows")
	}
	return nil
}

// Shut implements Carrier. What is held stays so.
func (s *Shims) Shut() error {
	if !s.swept {
		// An agent before this one left links open that this one has not
		// looked at.
		all, err := xdp.FindAll()
		if err != nil {
			return fmt.Errorf("looking for shims: %w", err)
		}
		for _, shim := range all {
			if old := s.shims[shim.LinkName()]; old != nil {
				_ = shim.Close()
				continue
			}
			s.shims[shim.LinkName()] = &bound{Shim: shim}
		}
		s.swept = true
	}
	var errs []error
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
