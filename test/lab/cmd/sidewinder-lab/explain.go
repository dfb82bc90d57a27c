package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/config"
	"github.com/sidewinder-net/sidewinder/test/lab"
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

// hint is a command that shows something at a place in the lab.
type hint struct{ place, program, args string }

// bsidTable is the kernel's routing table with a route for each binding SID.
const bsidTable = "0x5357"

// hints for a lab, those alone whose program is there.
func hints(l *lab.Lab, vppctl string, there func(program string) bool) []hint {
	var all []hint
	done := map[string]bool{}
	for _, n := range l.Nodes() {
		if done[n.Dataplane] {
			continue
		}
		done[n.Dataplane] = true
		if n.Dataplane == config.DataplaneVPP {
			for _, show := range []string{"sr policies", "sr steering-policies", "sr localsids"} {
				all = append(all, hint{n.Name, vppctl, fmt.Sprintf("-s %s/cli.sock show %s", n.VPPDir(), show)})
			}
			continue
		}
		for _, show := range []string{"nexthop", "-6 route show table " + bsidTable, "route", "-6 route"} {
			all = append(all, hint{n.Name, "ip", show})
		}
	}
	first, pods := l.Nodes()[0], l.Pods()
	all = append(all, hint{fabric.TorName(first.ID), "ip", "-6 route"})
	if to, ok := pods[len(pods)-1].Addr(4); ok {
		all = append(all, hint{pods[0].Name, "ping", "-c 3 " + to.String()})
	}
	all = append(all, hint{fabric.SpineName(1), "tcpdump", "-ni " + fabric.SpinePort(first.ID) + " ip6"})

	out := all[:0]
	for _, h := range all {
		if there(h.program) {
			out = append(out, h)
		}
	}
	return out
}

// runnable tells whether a program can be run here.
func runnable(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// explain says how to look around in a lab that stays up.
func (d *demo) explain() {
	id, self := d.in.ID, ownName()
	p := d.screen.printf
	p("\n%s Look around from another terminal (as the same user):\n", d.screen.paint(bold, "The lab stays up until Ctrl-C."))
	for _, h := range hints(d.lab, vppctlFor(d.choice.vpp), runnable) {
		p("  %s exec %s %s -- %s %s\n", self, id, h.place, h.program, h.args)
	}
	p("  objects %s\n  logs    %s/logs\n", d.lab.ObjectsDir(), d.in.Dir)
	p("  %s list; %s down %s\n", self, self, id)
}
