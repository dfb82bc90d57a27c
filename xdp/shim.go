package xdp

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Mode says who gets an interface's packets.
type Mode uint32

// The modes. A shim that is loaded anew is in ModeKernel.
const (
	// ModeKernel: all packets go to the kernel.
	ModeKernel Mode = 0
	// ModeVPP: VPP gets what the tables give it.
	ModeVPP Mode = 1
	// ModeHeld is ModeKernel by somebody's order: whoever turns interfaces to
	// VPP by itself leaves this one alone.
	ModeHeld Mode = 2
)

func (m Mode) String() string {
	switch m {
	case ModeKernel:
		return "kernel"
	case ModeVPP:
		return "vpp"
	case ModeHeld:
		return "held"
	}
	return fmt.Sprintf("mode %d", uint32(m))
}

// Role says what an interface is for, and so how its packets are read.
type Role uint32

// The roles. A shim that is loaded anew has RoleNone, and all its packets go to
// the kernel.
const (
	RoleNone   Role = 0
	RoleUplink Role = 1
	RolePod    Role = 2
)

func (r Role) String() string {
	switch r {
	case RoleNone:
		return "none"
	case RoleUplink:
		return "uplink"
	case RolePod:
		return "pod"
	}
	return fmt.Sprintf("role %d", uint32(r))
}

// The places of the settings map.
const (
	settingMode uint32 = 0
	settingRole uint32 = 1
)

// The ways a packet goes, by the numbers of enum counter in shim_maps.h.
const (
	countVPP = iota
	countNoSocket
	countKernelMode
	countKernelTable
	countKernelInner
	countKernelFlow
	countNotIP
	countVLAN
	countMulticast
	countOptions
	countFragment
	countMalformed
	counterNumber
)

// counterNames are the keys of Shim.Counters.
func counterNames() [counterNumber]string {
	return [counterNumber]string{
		countVPP:         "vpp",
		countNoSocket:    "no-socket",
		countKernelMode:  "kernel-mode",
		countKernelTable: "kernel-table",
		countKernelInner: "kernel-inner",
		countKernelFlow:  "kernel-flow",
		countNotIP:       "not-ip",
		countVLAN:        "vlan",
		countMulticast:   "multicast",
		countOptions:     "options",
		countFragment:    "fragment",
		countMalformed:   "malformed",
	}
}

// Shim is the shim of one link: its program and its own maps, which live in the
// kernel for as long as the program is attached, also without this process.
type Shim struct {
	linkIndex int
	linkName  string
	programID uint32
	native    bool

	program  *ebpf.Program // nil after Find
	settings settingsMap

	mu   sync.Mutex // over maps
	maps [mapNumber]lazyMap
}

// The maps beside settings, in Shim.maps.
const (
	mapCache = iota
	mapCounters
	mapFlows
	mapTables
	mapSockets
	mapNumber
)

// LinkIndex is the link's number in its network namespace.
func (s *Shim) LinkIndex() int { return s.linkIndex }

// LinkName is the link's name when it was found.
func (s *Shim) LinkName() string { return s.linkName }

// ProgramID is the kernel's number of the program, new with each load: VPP loads
// the shim anew at each start.
func (s *Shim) ProgramID() uint32 { return s.programID }

// Native reports whether the driver runs the program, and not the kernel's
// generic XDP, which is slower and copies.
func (s *Shim) Native() bool { return s.native }

func (s *Shim) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("link %s: XDP shim (program %d): %s: %w", s.linkName, s.programID, what, err)
}

// Mode reads the mode.
func (s *Shim) Mode() (Mode, error) {
	v, err := s.settings.get(settingMode)
	return Mode(v), s.wrap("read mode", err)
}

// SetMode sets the mode. It is one write, and holds for the next packet.
func (s *Shim) SetMode(m Mode) error {
	if m > ModeHeld {
		return s.wrap("set mode", fmt.Errorf("%s is none of kernel, vpp, held", m))
	}
	return s.wrap("set mode "+m.String(), s.settings.put(settingMode, uint32(m)))
}

// Role reads the role.
func (s *Shim) Role() (Role, error) {
	v, err := s.settings.get(settingRole)
	return Role(v), s.wrap("read role", err)
}

// open gives the maps of these numbers.
func (s *Shim) open(which ...int) ([]*ebpf.Map, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps := make([]*ebpf.Map, len(which))
	for i, n := range which {
		var err error
		if maps[i], err = s.maps[n].get(); err != nil {
			return nil, err
		}
	}
	return maps, nil
}

// Bind gives the shim the node's tables, and then its role: from then on it
// redirects what they give VPP, if it is in ModeVPP. Binding anew to the same is
// cheap; for new tables the kernel waits for packets under way, some
// milliseconds: bind many links at the same time, from many goroutines.
//
// The shim keeps the tables: they outlive t and this process.
func (s *Shim) Bind(r Role, t *Tables) error {
	if r != RoleUplink && r != RolePod {
		return s.wrap("bind", fmt.Errorf("role %s: want uplink or pod", r))
	}
	maps, err := s.open(mapTables, mapFlows, mapCache)
	if err != nil {
		return s.wrap("bind", err)
	}
	// The order is enum table's of shim_maps.h.
	var wg sync.WaitGroup
	var tablesErr, flowsErr error
	wg.Go(func() { tablesErr = bindSlots(maps[0], t.uplink, t.pods) })
	wg.Go(func() { flowsErr = bindSlots(maps[1], t.flows) })
	wg.Wait()
	if err := errors.Join(tablesErr, flowsErr); err != nil {
		return s.wrap("bind tables", err)
	}
	// Last: a cache must never hold what came from other tables.
	if err := bindSlots(maps[2], t.cache); err != nil {
		return s.wrap("bind cache", err)
	}
	return s.wrap("set role "+r.String(), s.settings.put(settingRole, uint32(r)))
}

// bindSlots makes outer hold exactly these maps, in slots 0, 1, ...
func bindSlots(outer *ebpf.Map, inner ...*shared) error {
	keys := make([]uint32, len(inner))
	fds := make([]uint32, len(inner))
	same := true
	for i, m := range inner {
		keys[i], fds[i] = uint32(i), uint32(m.FD())
		var have uint32
		err := outer.Lookup(keys[i], &have)
		same = same && err == nil && have == uint32(m.id)
	}
	if same {
		return nil
	}
	// One wait of the kernel's for all slots, where it has batches for such maps.
	if _, err := outer.BatchUpdate(keys, fds, nil); err == nil {
		return nil
	}
	for i := range keys {
		if err := outer.Put(keys[i], fds[i]); err != nil {
			return err
		}
	}
	return nil
}

// Counters are the packets since the shim was loaded, by which way they went and
// why, summed over all CPUs. All names are always there; the package comment
// says what they mean.
func (s *Shim) Counters() (map[string]uint64, error) {
	maps, err := s.open(mapCounters)
	if err != nil {
		return nil, s.wrap("read counters", err)
	}
	counters := make(map[string]uint64, counterNumber)
	var perCPU []uint64
	for i, name := range counterNames() {
		if err := maps[0].Lookup(uint32(i), &perCPU); err != nil {
			return nil, s.wrap("read counter "+name, err)
		}
		for _, n := range perCPU {
			counters[name] += n
		}
	}
	return counters, nil
}

// RegisterSocket lets the packets of a queue go to an AF_XDP socket, which is
// bound to that queue: what VPP does for its own sockets. The entry goes with
// the socket.
func (s *Shim) RegisterSocket(queue uint32, fd int) error {
	maps, err := s.open(mapSockets)
	if err == nil {
		err = maps[0].Put(queue, uint32(fd))
	}
	return s.wrap(fmt.Sprintf("register socket on queue %d", queue), err)
}

// Close lets go of the descriptors. The program stays attached.
func (s *Shim) Close() error {
	errs := []error{unix.Close(int(s.settings))}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.maps {
		errs = append(errs, s.maps[i].close())
	}
	if s.program != nil {
		errs = append(errs, s.program.Close())
	}
	return s.wrap("close", errors.Join(errs...))
}
