package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/test/lab/fabric"
)

// ownName is how this program is called from the current directory.
func ownName() string {
	self, err := os.Executable()
	if err != nil {
		return "sidewinder-lab"
	}
	if cwd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(cwd, self); err == nil && filepath.IsLocal(rel) && strings.Contains(rel, "/") {
			return rel
		}
	}
	return self
}

// explain says how to look around in a lab that stays up.
func (d *demo) explain() {
	id := d.in.ID
	p := d.screen.printf
	p("\n%s Look around from another terminal (as the same user):\n", d.screen.paint(bold, "The lab stays up until Ctrl-C."))
	self := ownName()
	run := self + " exec " + id
	first := d.lab.Nodes()[0]
	pods := d.lab.Pods()
	for _, n := range d.lab.Nodes() {
		if n.Dataplane != config.DataplaneVPP {
			continue
		}
		ctl := fmt.Sprintf("%s %s -- %s -s %s/cli.sock", run, n.Name, vppctlFor(d.choice.vpp), n.VPPDir())
		for _, show := range []string{"sr policies", "sr steering-policies", "sr localsids"} {
			p("  %s show %s\n", ctl, show)
		}
		break
	}
	p("  %s %s -- ip -6 route\n", run, first.Name)
	p("  %s %s -- ip route\n", run, first.Name)
	if to, ok := pods[len(pods)-1].Addr(4); ok {
		p("  %s %s -- ping -c 3 %s\n", run, pods[0].Name, to)
	}
	p("  %s spine1 -- tcpdump -ni %s ip6\n", run, fabric.SpinePort(first.ID))
	p("  objects %s\n  logs    %s/logs\n", d.lab.ObjectsDir(), d.in.Dir)
	p("  %s list; %s down %s\n", self, self, id)
}
