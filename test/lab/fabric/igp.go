package fabric

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"sigs.k8s.io/yaml"

	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

// igpInterval is how often published objects are read; a real IGP floods in
// less, and nothing here waits for more.
const igpInterval = 100 * time.Millisecond

// RunIGP keeps the routers' locator routes equal to what the nodes published,
// until the context ends. It stands in for a routing protocol on the nodes:
// like one, it knows a locator only once its node announces it. nodeID maps a
// node's name to its number in the fabric.
func (f *Fabric) RunIGP(ctx context.Context, dir string, nodeID func(name string) (int, bool), log logrus.FieldLogger) {
	tick := time.NewTicker(igpInterval)
	defer tick.Stop()
	var objects reader
	for {
		f.converge(objects.published(dir), nodeID, log)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (f *Fabric) converge(want map[netip.Prefix]origin, nodeID func(string) (int, bool), log logrus.FieldLogger) {
	for locator := range f.Announced() {
		if _, ok := want[locator]; ok {
			continue
		}
		log.WithField("locator", locator).Info("withdraw locator")
		if err := f.Withdraw(locator); err != nil {
			log.WithField("locator", locator).WithError(err).Error("withdraw locator")
		}
	}
	for locator, from := range want {
		id, ok := nodeID(from.node)
		if !ok {
			continue
		}
		a := Announcement{Node: id, Via: Via(id, from.source)}
		if f.Announced()[locator] == a {
			continue
		}
		log.WithFields(logrus.Fields{"locator": locator, "node": from.node, "via": a.Via}).Info("announce locator")
		if err := f.Announce(id, locator, from.source); err != nil {
			log.WithField("locator", locator).WithError(err).Error("announce locator")
		}
	}
}

// origin is who published a locator, and from which address: the SRv6Node's
// encapSource, invalid where it has none.
type origin struct {
	node   string
	source netip.Addr
}

// reader remembers what is in a file for as long as the file stays the same.
type reader struct{ seen map[string]fileFacts }

type fileFacts struct {
	changed time.Time
	size    int64
	origin  origin
	locator netip.Prefix
}

// published reads the locators from the folder's SRv6Node objects. What cannot
// be read is not announced; the agents report such files better than a router
// could.
func (r *reader) published(dir string) map[netip.Prefix]origin {
	out := map[netip.Prefix]origin{}
	now := map[string]fileFacts{}
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return out
	}
	for _, path := range paths {
		st, err := os.Stat(path)
		if err != nil {
			continue
		}
		facts, ok := r.seen[path]
		if !ok || !facts.changed.Equal(st.ModTime()) || facts.size != st.Size() {
			facts = fileFacts{changed: st.ModTime(), size: st.Size()}
			facts.origin, facts.locator = readNode(path)
		}
		now[path] = facts
		if facts.locator.IsValid() {
			out[facts.locator] = facts.origin
		}
	}
	r.seen = now
	return out
}

// readNode gives the locator of a file with an SRv6Node in it, and its origin.
func readNode(path string) (origin, netip.Prefix) {
	raw, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(raw), v1alpha1.KindSRv6Node) {
		return origin{}, netip.Prefix{}
	}
	var obj v1alpha1.SRv6Node
	if yaml.Unmarshal(raw, &obj) != nil || obj.Kind != v1alpha1.KindSRv6Node {
		return origin{}, netip.Prefix{}
	}
	p, err := netip.ParsePrefix(obj.Spec.Locator)
	if err != nil {
		return origin{}, netip.Prefix{}
	}
	// The zero address, where it cannot be read, is on no link.
	source, _ := netip.ParseAddr(obj.Spec.EncapSource)
	return origin{node: obj.Name, source: source}, p.Masked()
}
