package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
)

// Verdict is what a table says of a prefix.
type Verdict uint32

// The verdicts. What no prefix covers goes to the kernel.
const (
	// VerdictVPP: VPP's.
	VerdictVPP Verdict = 1
	// VerdictVPPInner (uplink): a SID that VPP decapsulates. A packet is VPP's
	// when the inner packet's two addresses are, by the pod table.
	VerdictVPPInner Verdict = 2
	// VerdictKernel: the kernel's, inside a larger prefix of VPP's.
	VerdictKernel Verdict = 3
)

func (v Verdict) String() string {
	switch v {
	case VerdictVPP:
		return "vpp"
	case VerdictVPPInner:
		return "vpp-inner"
	case VerdictKernel:
		return "kernel"
	}
	return fmt.Sprintf("verdict %d", uint32(v))
}

// The sizes that TablesOptions' zero values stand for.
const (
	DefaultMaxPrefixes = 1 << 16
	DefaultMaxFlows    = 1 << 17
)

// TablesOptions sizes the tables.
type TablesOptions struct {
	// MaxPrefixes of each of the two prefix tables; memory is taken as they
	// fill. 0: DefaultMaxPrefixes.
	MaxPrefixes uint32
	// MaxFlows are the connections that are remembered to be the kernel's, 100
	// bytes each, taken at once; the least recently used give way. 0:
	// DefaultMaxFlows.
	MaxFlows uint32
}

// Tables are what all shims of a node share: which destinations are VPP's on
// uplinks and on pods, and which connections are the kernel's. They live as long
// as a shim that is bound to them does.
type Tables struct {
	uplink, pods, flows *shared
	// cache remembers, for each CPU, what was found in uplink and pods.
	cache      *shared
	mu         sync.Mutex // makes a change and its new generation one
	generation uint32     // as struct cached of shim_maps.h has it
}

// shared is a map that shims have in common.
type shared struct {
	*ebpf.Map
	id ebpf.MapID
}

func newShared(m *ebpf.Map) (*shared, error) {
	info, err := m.Info()
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	id, ok := info.ID()
	if !ok {
		return nil, errors.Join(fmt.Errorf("%w: the kernel does not tell a map's number", ErrUnsupported), m.Close())
	}
	return &shared{m, id}, nil
}

// lpmKey is struct lpm_key of shim_maps.h. IPv4 is v4-mapped IPv6.
type lpmKey struct {
	Bits uint32
	Addr [16]byte
}

func keyOf(p netip.Prefix) lpmKey {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return lpmKey{Bits: uint32(bits), Addr: p.Masked().Addr().As16()}
}

func (k lpmKey) prefix() netip.Prefix {
	addr, bits := netip.AddrFrom16(k.Addr), int(k.Bits)
	if addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	return netip.PrefixFrom(addr, bits)
}

// flowKey and flow are struct flow_key and struct flow of shim_maps.h.
type flowKey struct {
	Addr  [16]byte
	Port  [2]byte // network order
	Proto uint8
	Zero  uint8
}

type flow struct {
	Expires uint64 // CLOCK_MONOTONIC, ns
	State   uint32
	Zero    uint32
}

// The bits of flow.State.
const (
	flowServer  = 1
	flowClosing = 2
)

// NewTables makes empty tables.
func NewTables(o TablesOptions) (*Tables, error) {
	if o.MaxPrefixes == 0 {
		o.MaxPrefixes = DefaultMaxPrefixes
	}
	if o.MaxFlows == 0 {
		o.MaxFlows = DefaultMaxFlows
	}
	spec, err := loadShim()
	if err != nil {
		return nil, err
	}
	lpm, flows, cache := spec.Maps[shimMapTables].InnerMap, spec.Maps[shimMapFlows].InnerMap, spec.Maps[shimMapCache].InnerMap
	t := &Tables{}
	for _, m := range []struct {
		place **shared
		name  string
		inner *ebpf.MapSpec
		size  uint32
	}{
		{&t.uplink, "swr_uplink", lpm, o.MaxPrefixes},
		{&t.pods, "swr_pods", lpm, o.MaxPrefixes},
		{&t.flows, "swr_flows", flows, o.MaxFlows},
		{&t.cache, "swr_cache", cache, cache.MaxEntries},
	} {
		s := m.inner.Copy()
		s.Name, s.MaxEntries = m.name, m.size
		made, err := ebpf.NewMap(s)
		if err == nil {
			*m.place, err = newShared(made)
		}
		if err != nil {
			_ = t.Close()
			return nil, fmt.Errorf("XDP shim's table %s of %d entries: %w", m.name, m.size, err)
		}
	}
	if err := t.newGeneration(); err != nil {
		_ = t.Close()
		return nil, err
	}
	return t, nil
}

// cached is struct cached of shim_maps.h.
type cached struct {
	Addr    [16]byte
	Tag     uint32
	Verdict uint32
}

// newGeneration makes the shims forget what they found in the tables.
func (t *Tables) newGeneration() error {
	if t.generation += 2; t.generation == 0 {
		t.generation = 2
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("XDP shim's cache: %w", err)
	}
	if err := t.cache.Put(uint32(0), slices.Repeat([]cached{{Tag: t.generation}}, cpus)); err != nil {
		return fmt.Errorf("XDP shim's cache: %w", err)
	}
	return nil
}

// SetUplink makes the uplinks' table exactly this: IPv6 prefixes, of any
// verdict. New and changed prefixes are written first, then the others removed,
// so that no prefix that stays is ever absent.
func (t *Tables) SetUplink(prefixes map[netip.Prefix]Verdict) error {
	for p, v := range prefixes {
		if p.Addr().Is4() || p.Addr().Is4In6() {
			return fmt.Errorf("XDP shim's uplink table: %s %s: an uplink's packets to VPP are IPv6", p, v)
		}
	}
	return t.set(t.uplink, "uplink", prefixes)
}

// SetPods makes the pods' table exactly this, as SetUplink does: IPv4 and IPv6
// prefixes, VerdictVPP or VerdictKernel.
func (t *Tables) SetPods(prefixes map[netip.Prefix]Verdict) error {
	for p, v := range prefixes {
		if v == VerdictVPPInner {
			return fmt.Errorf("XDP shim's pod table: %s: %s is for uplinks", p, v)
		}
	}
	return t.set(t.pods, "pod", prefixes)
}

// Uplink and Pods read the tables back.
func (t *Tables) Uplink() (map[netip.Prefix]Verdict, error) { return readPrefixes(t.uplink) }

// Pods reads the pods' table back.
func (t *Tables) Pods() (map[netip.Prefix]Verdict, error) { return readPrefixes(t.pods) }

func (t *Tables) set(m *shared, name string, prefixes map[netip.Prefix]Verdict) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := setPrefixes(m, name, prefixes)
	// Also after a failure: some of it may be written.
	return errors.Join(err, t.newGeneration())
}

func setPrefixes(m *shared, name string, prefixes map[netip.Prefix]Verdict) error {
	fail := func(err error) error { return fmt.Errorf("XDP shim's %s table: %w", name, err) }
	want := make(map[lpmKey]uint32, len(prefixes))
	for p, v := range prefixes {
		if !p.IsValid() || v < VerdictVPP || v > VerdictKernel {
			return fail(fmt.Errorf("%s %s: not a prefix and a verdict", p, v))
		}
		want[keyOf(p)] = uint32(v)
	}
	if max := m.MaxEntries(); len(want) > int(max) {
		return fail(fmt.Errorf("%d prefixes, it was made for %d: raise TablesOptions.MaxPrefixes", len(want), max))
	}
	have, err := readKeys(m)
	if err != nil {
		return fail(err)
	}
	var keys, gone []lpmKey
	var values []uint32
	for k, v := range want {
		if old, ok := have[k]; !ok || old != v {
			keys, values = append(keys, k), append(values, v)
		}
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			gone = append(gone, k)
		}
	}
	// A full table has no room for both: then what goes makes room first.
	if len(have)+len(keys) > int(m.MaxEntries()) {
		if err := deleteKeys(m, gone); err != nil {
			return fail(err)
		}
		gone = nil
	}
	if err := putKeys(m, keys, values); err != nil {
		return fail(err)
	}
	if err := deleteKeys(m, gone); err != nil {
		return fail(err)
	}
	return nil
}

func putKeys(m *shared, keys []lpmKey, values []uint32) error {
	if len(keys) == 0 {
		return nil
	}
	done, err := m.BatchUpdate(keys, values, nil)
	if err == nil {
		return nil
	}
	if !errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("%s: %w", keys[min(done, len(keys)-1)].prefix(), err)
	}
	for i := range keys {
		if err := m.Put(keys[i], values[i]); err != nil {
			return fmt.Errorf("%s: %w", keys[i].prefix(), err)
		}
	}
	return nil
}

func deleteKeys(m *shared, keys []lpmKey) error {
	if len(keys) == 0 {
		return nil
	}
	if _, err := m.BatchDelete(keys, nil); err == nil {
		return nil
	}
	// Not supported, or one was gone already.
	for _, k := range keys {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete %s: %w", k.prefix(), err)
		}
	}
	return nil
}

func readPrefixes(m *shared) (map[netip.Prefix]Verdict, error) {
	keys, err := readKeys(m)
	if err != nil {
		return nil, err
	}
	prefixes := make(map[netip.Prefix]Verdict, len(keys))
	for k, v := range keys {
		prefixes[k.prefix()] = Verdict(v)
	}
	return prefixes, nil
}

// readKeys reads a whole table.
func readKeys(m *shared) (map[lpmKey]uint32, error) {
	have := map[lpmKey]uint32{}
	var cursor ebpf.MapBatchCursor
	keys, values := make([]lpmKey, 1024), make([]uint32, 1024)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			if errors.Is(err, ebpf.ErrNotSupported) {
				break
			}
			return nil, fmt.Errorf("read: %w", err)
		}
		for i := range n {
			have[keys[i]] = values[i]
		}
		if err != nil {
			return have, nil
		}
	}
	var key lpmKey
	var value uint32
	clear(have)
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		have[key] = value
	}
	return have, entries.Err()
}

// AdoptFlows takes over the connections that are known to a shim which somebody
// bound earlier: they go on being the kernel's. False: it knows none, or keeps
// them in another layout. To be called before anything is bound to t.
func (t *Tables) AdoptFlows(s *Shim) (bool, error) {
	maps, err := s.open(mapFlows)
	if err != nil {
		return false, s.wrap("read flows", err)
	}
	var id uint32
	err = maps[0].Lookup(uint32(0), &id)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	if err != nil {
		return false, s.wrap("read flows", err)
	}
	m, err := ebpf.NewMapFromID(ebpf.MapID(id))
	if err != nil {
		return false, s.wrap("open flows", err)
	}
	if m.Type() != t.flows.Type() || m.KeySize() != t.flows.KeySize() || m.ValueSize() != t.flows.ValueSize() || m.Flags() != t.flows.Flags() {
		return false, m.Close()
	}
	old := t.flows
	t.flows = &shared{m, ebpf.MapID(id)}
	return true, old.Close()
}

// Close lets go of the descriptors. Shims that are bound keep the tables.
func (t *Tables) Close() error {
	var errs []error
	for _, m := range []*shared{t.uplink, t.pods, t.flows, t.cache} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
