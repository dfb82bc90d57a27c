package switchover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/xdp"
)

// Names of the two dataplanes in status.
const (
	ActiveVPP    = "vpp"
	ActiveKernel = "linux"
)

// Links are the node's links by name, sorted.
type Links struct {
	Uplinks, Pods []string
}

// Carrier hands packets to VPP, or keeps them from it, on the links of one kind.
// Its methods are not called at the same time.
type Carrier interface {
	// Set makes the tables hold exactly this.
	Set(Tables) error
	// Bind has the links watched for connections that the kernel carries, with
	// the tables as they are, and lets VPP have nothing more than it has. What
	// cannot be bound is told by Open.
	Bind(Links)
	// Open lets VPP have what the tables say, on these links and no others.
	// The errors are by link; a link that is missing is none of them.
	Open(Links) map[string]error
	// Shut gives everything to the kernel.
	Shut() error
	// Links tell what is going on.
	Links() []status.Link
	// Close releases descriptors and leaves everything as it is.
	Close() error
}

// Options for New.
type Options struct {
	// Unmet are the objects that VPP does not hold as desired, see
	// reconcile.Reconciler.
	Unmet func(generation uint64) (map[dataplane.Key]error, error)
	// Repair has VPP compared with what is wanted: a link of VPP's has lost the
	// shim.
	Repair func()
	// Drop lets go of the connection to a VPP that vpp-manager has given up:
	// calls to one that hangs would be waited for.
	Drop func()
	// Manager reads what vpp-manager says. An error means that there is none,
	// or none that can be understood.
	Manager func() (node.Manager, error)
	// BeforeOpen, where set, is called each time before VPP gets traffic or
	// keeps it, for what the kernel needs to carry it afterwards. Its error is
	// logged when it is new, and keeps nothing from VPP.
	BeforeOpen func() error
	// Uplinks and Pods are the carriers of the two kinds of links; one for both
	// is possible. Nil: VPP has these links for itself.
	Uplinks, Pods Carrier
	Log           logrus.FieldLogger
}

// Gate is the switch.
type Gate struct {
	o    Options
	wake chan struct{}

	// work is held by whoever touches the carriers; mu guards what is below
	// and is held for moments.
	work sync.Mutex
	mu   sync.Mutex

	want       dataplane.Redirects
	links      Links
	generation uint64 // 0: nothing is wanted yet

	now     Tables            // what the carriers' tables hold
	filled  bool              // now is known
	asked   map[string]string // links that Repair was last asked for, with why
	askedAt time.Time
	binding bool // VPP is being programmed; Run's alone
	// unprepared is BeforeOpen's last error.
	unprepared string

	known  bool // a pass has come to a conclusion
	active bool
	why    string
	told   string // the reason that was logged last
	// passing: why is about VPP being away, not about what it lacks.
	passing bool
	since   time.Time
	turns   int
	held    []status.Object // withheld destinations, sorted
	last    node.Manager
	hasMan  bool
}

// New makes a Gate. Nothing happens before Run.
func New(o Options) *Gate {
	return &Gate{o: o, wake: make(chan struct{}, 1), why: "the agent has just started", since: time.Now()}
}

// Nudge asks for a look at what has changed. It never blocks.
func (g *Gate) Nudge() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Narrow takes from VPP the destinations that next does not have any more, and
// answers when that is done: before VPP itself forgets them.
func (g *Gate) Narrow(next dataplane.Redirects) {
	g.work.Lock()
	defer g.work.Unlock()
	// A pass before the next Want must not give them back.
	g.mu.Lock()
	g.want = dataplane.Redirects{Uplink: still(g.want.Uplink, next.Uplink), Pods: still(g.want.Pods, next.Pods)}
	g.mu.Unlock()
	if !g.filled {
		return
	}
	t := Tables{Uplink: common(g.now.Uplink, next.Uplink), Pods: common(g.now.Pods, next.Pods)}
	if maps.Equal(t.Uplink, g.now.Uplink) && maps.Equal(t.Pods, g.now.Pods) {
		return
	}
	if err := g.set(t); err != nil {
		g.shut("destinations that VPP is about to forget cannot be taken from it: " + err.Error())
	}
	if g.Active() {
		time.Sleep(drain)
	}
}

// Want says what VPP is to carry, on which links, once it has worked on this
// generation of its desired state.
func (g *Gate) Want(r dataplane.Redirects, l Links, generation uint64) {
	g.mu.Lock()
	g.want, g.links, g.generation = r, l, generation
	g.mu.Unlock()
	g.Nudge()
}

// drain is how long VPP needs for what is in its rings.
const drain = 2 * time.Millisecond

// Pause lets the kernel have the traffic for as long as VPP is being changed:
// VPP forwards nothing while it makes an interface. The pass after the change
// gives it back; in between VPP counts as active. An agent that has just started
// does not know who has the traffic: then it may be VPP.
func (g *Gate) Pause() {
	g.work.Lock()
	defer g.work.Unlock()
	g.mu.Lock()
	kernel := g.known && !g.active
	g.mu.Unlock()
	if kernel {
		return
	}
	for _, p := range g.parts(Links{}) {
		if err := p.carrier.Shut(); err != nil {
			g.o.Log.WithError(err).Warn("VPP keeps some of the traffic while it makes an interface: packets may be late")
		}
	}
	time.Sleep(drain)
}

// Intervals of looking without being asked: at vpp-manager's file, and at all
// the links.
const (
	managerInterval = 50 * time.Millisecond
	linkInterval    = time.Second
)

// Run works until ctx ends, and leaves everything as it is then: VPP goes on
// while the agent restarts.
func (g *Gate) Run(ctx context.Context) error {
	manager := time.NewTicker(managerInterval)
	defer manager.Stop()
	links := time.NewTicker(linkInterval)
	defer links.Stop()
	for {
		select {
		case <-ctx.Done():
			return g.close()
		case <-g.wake:
		case <-links.C:
		case <-manager.C:
			if !g.managerChanged() && !g.binding {
				continue
			}
		}
		g.pass()
	}
}

func (g *Gate) close() error {
	g.work.Lock()
	defer g.work.Unlock()
	var errs []error
	for _, p := range g.parts(Links{}) {
		errs = append(errs, p.carrier.Close())
	}
	return errors.Join(errs...)
}

// part is a carrier with its links.
type part struct {
	carrier Carrier
	links   Links
}

// parts gives each carrier its links, the uplinks' first.
func (g *Gate) parts(l Links) []part {
	if g.o.Uplinks == g.o.Pods {
		if g.o.Uplinks == nil {
			return nil
		}
		return []part{{g.o.Uplinks, l}}
	}
	var out []part
	if g.o.Uplinks != nil {
		out = append(out, part{g.o.Uplinks, Links{Uplinks: l.Uplinks}})
	}
	if g.o.Pods != nil {
		out = append(out, part{g.o.Pods, Links{Pods: l.Pods}})
	}
	return out
}

func (g *Gate) managerChanged() bool {
	m, err := g.o.Manager()
	g.mu.Lock()
	defer g.mu.Unlock()
	return (err == nil) != g.hasMan || err == nil && m.State != g.last.State
}

// pass looks at everything and acts.
func (g *Gate) pass() {
	g.work.Lock()
	defer g.work.Unlock()
	g.binding = false
	m, merr := g.o.Manager()
	g.mu.Lock()
	before := g.last
	g.last, g.hasMan = m, merr == nil
	want, links, generation := g.want, g.links, g.generation
	g.mu.Unlock()
	// One that has been stopped says nothing about a VPP that somebody else runs.
	if merr == nil && m.State != node.StateReady && m.State != node.StateStopped {
		// Also before anything is wanted: an agent whose source does not answer
		// must not leave the traffic with a VPP that is not there.
		g.shut(managerReason(m))
		g.setPassing(true)
		if over := m.State == node.StateWaiting || m.State == node.StateGivenUp; over && before.State != m.State {
			g.o.Drop()
		}
		return
	}
	if generation == 0 {
		return
	}
	unmet, err := g.o.Unmet(generation)
	switch {
	case errors.Is(err, dataplane.ErrNotReady):
		// Where VPP is active, it goes on with what the old and the new state
		// have in common; where it is not, or nobody knows yet, nothing changes.
		g.mu.Lock()
		if !g.known || !g.active && g.passing {
			g.why = "VPP is being programmed"
		}
		g.mu.Unlock()
		g.bind(links)
	case err != nil:
		g.shut("VPP cannot be used: " + err.Error())
		g.setPassing(true)
	default:
		g.open(want, links, unmet)
	}
}

// bind: VPP that has started anew puts new shims on the links, one after the other
// for seconds. The connections of pods that begin meanwhile must be known when it
// has the traffic. With empty tables all of them would count as the kernel's, and
// a VPP that is active would lose what it has. g.work is held.
func (g *Gate) bind(links Links) {
	if !g.filled {
		return
	}
	g.binding = true
	for _, p := range g.parts(links) {
		p.carrier.Bind(p.links)
	}
}

// setPassing: the reason is over as soon as vpp-manager or VPP answers otherwise.
func (g *Gate) setPassing(passing bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passing = passing
}

// open gives VPP what it holds.
func (g *Gate) open(want dataplane.Redirects, links Links, unmet map[dataplane.Key]error) {
	for _, name := range links.Uplinks {
		if err, bad := unmet[dataplane.InterfaceKey(name)]; bad {
			g.shut(fmt.Sprintf("VPP does not have uplink %s: %v", name, err))
			return
		}
	}
	t := Tables{Uplink: map[netip.Prefix]xdp.Verdict{}, Pods: map[netip.Prefix]xdp.Verdict{}}
	if withheld := fill(t.Uplink, want.Uplink, unmet); len(withheld) > 0 {
		g.shut(fmt.Sprintf("VPP lacks what %s needs: %s", withheld[0].Key, withheld[0].Reason))
		return
	}
	withheld := fill(t.Pods, want.Pods, unmet)
	g.prepare()
	if err := g.set(t); err != nil {
		g.shut("the tables of what VPP carries cannot be written: " + err.Error())
		return
	}
	failing := map[string]error{}
	for _, p := range g.parts(links) {
		errs := p.carrier.Open(p.links)
		for _, name := range p.links.Uplinks {
			if err := errs[name]; err != nil {
				g.shut(fmt.Sprintf("uplink %s: %v", name, err))
				g.repair(errs)
				return
			}
		}
		withheld = append(withheld, byLink(errs)...)
		maps.Copy(failing, errs)
	}
	g.repair(failing)
	g.conclude(true, "", withheld)
}

// prepare calls BeforeOpen. g.work is held.
func (g *Gate) prepare() {
	if g.o.BeforeOpen == nil {
		return
	}
	text := ""
	if err := g.o.BeforeOpen(); err != nil {
		if text = err.Error(); text != g.unprepared {
			g.o.Log.Warn(text)
		}
	}
	g.unprepared = text
}

// repairInterval is how often VPP is compared for links that go on failing in the
// same way. Each comparison ends in a pass: without a bound the two would go
// round without a break.
const repairInterval = 10 * time.Second

// repair has VPP compared for links that have lost the shim. What vpp-manager
// holds has not. g.work is held.
func (g *Gate) repair(errs map[string]error) {
	failing := map[string]string{}
	news := time.Since(g.askedAt) >= repairInterval
	for name, err := range errs {
		if errors.Is(err, errHeld) {
			continue
		}
		failing[name] = err.Error()
		news = news || g.asked[name] != failing[name]
	}
	g.asked = failing
	if news && len(failing) > 0 {
		g.askedAt = time.Now()
		g.o.Repair()
	}
}

func byLink(errs map[string]error) []status.Object {
	var out []status.Object
	for _, name := range slices.Sorted(maps.Keys(errs)) {
		out = append(out, status.Object{Key: "link " + name, Reason: errs[name].Error()})
	}
	return out
}

// set writes the carriers' tables where they differ. g.work is held.
func (g *Gate) set(t Tables) error {
	if g.filled && maps.Equal(g.now.Uplink, t.Uplink) && maps.Equal(g.now.Pods, t.Pods) {
		return nil
	}
	g.filled = false
	for _, p := range g.parts(Links{}) {
		if err := p.carrier.Set(t); err != nil {
			return err
		}
	}
	g.now, g.filled = t, true
	return nil
}

// shut gives everything to the kernel. g.work is held.
func (g *Gate) shut(why string) {
	var errs []error
	for _, p := range g.parts(Links{}) {
		errs = append(errs, p.carrier.Shut())
	}
	if err := errors.Join(errs...); err != nil {
		// VPP may get packets still. The next pass tries again.
		g.o.Log.WithError(err).Error("traffic cannot be given to the kernel everywhere")
		why += "; and traffic cannot be given to the kernel everywhere: " + err.Error()
	}
	g.conclude(false, why, nil)
}

// conclude notes the outcome of a pass, and tells when it is news.
func (g *Gate) conclude(active bool, why string, withheld []status.Object) {
	g.mu.Lock()
	defer g.mu.Unlock()
	news := !g.known || g.active != active
	if news && g.known {
		g.turns++
	}
	if news {
		g.since = time.Now()
		if active {
			g.o.Log.WithFields(logrus.Fields{"uplinks": g.links.Uplinks, "destinations": len(g.now.Pods), "withheld": len(withheld)}).Info("VPP carries the traffic")
		}
	}
	if !active && (news || why != g.told) {
		g.told = why
		g.o.Log.WithField("reason", why).Warn("the kernel carries the traffic")
	}
	fresh := newIn(withheld, g.held)
	for i, w := range fresh {
		if i == toldEach {
			g.o.Log.WithField("more", len(fresh)-i).Warn("stay with the kernel; status has all")
			break
		}
		g.o.Log.WithFields(logrus.Fields{"destination": w.Key, "reason": w.Reason}).Warn("stays with the kernel")
	}
	g.known, g.active, g.why, g.held, g.passing = true, active, why, withheld, false
}

// toldEach is how many withheld destinations are logged at a time: one next hop
// may be the way to thousands.
const toldEach = 10

func newIn(now, before []status.Object) []status.Object {
	old := make(map[status.Object]bool, len(before))
	for _, o := range before {
		old[o] = true
	}
	return slices.DeleteFunc(slices.Clone(now), func(o status.Object) bool { return old[o] })
}

// Active reports whether VPP carries the traffic.
func (g *Gate) Active() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.active
}
