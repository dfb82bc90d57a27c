package switchover

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/api/node"
)

func managerReason(m node.Manager) string {
	s := "vpp-manager says that VPP is " + string(m.State)
	if m.State == node.StateWaiting && !m.NextStart.IsZero() {
		s += " until " + m.NextStart.UTC().Format(time.RFC3339)
	}
	if m.LastDeath != "" && (m.State == node.StateWaiting || m.State == node.StateGivenUp) {
		first, _, _ := strings.Cut(m.LastDeath, "\n")
		s += fmt.Sprintf(" after %d deaths, the last: %s", m.Deaths, first)
	}
	if m.State == node.StateGivenUp {
		s += " (find the reason in its log, then run vpp-manager restart)"
	}
	return s
}

// Status tells who carries the traffic, and why.
func (g *Gate) Status() status.Dataplane {
	var links []status.Link
	g.work.Lock()
	for _, p := range g.parts(Links{}) {
		links = append(links, p.carrier.Links()...)
	}
	g.work.Unlock()
	slices.SortFunc(links, func(a, b status.Link) int { return strings.Compare(a.Name, b.Name) })
	g.mu.Lock()
	defer g.mu.Unlock()
	d := status.Dataplane{
		Active: ActiveKernel, Reason: g.why, Since: g.since, Switches: g.turns,
		Withheld: slices.Clone(g.held), Links: links,
	}
	if g.active {
		d.Active = ActiveVPP
	}
	if g.hasMan {
		d.Manager = &status.Manager{
			State: string(g.last.State), PID: g.last.PID, Deaths: g.last.Deaths, LastDeath: g.last.LastDeath, NextStart: g.last.NextStart,
		}
	}
	return d
}
