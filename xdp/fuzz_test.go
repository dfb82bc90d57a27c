package xdp

import (
	"testing"
)

// FuzzShim gives the program and its model the same frame, in each role: they
// must count it alike and remember the same, and the frame must come out as it
// went in, passed or redirected. What was remembered of the frame itself is
// there for its second run.
func FuzzShim(f *testing.F) {
	for _, c := range append(uplinkCases(), podCases()...) {
		f.Add(c.frame)
	}
	for _, s := range []step{
		out(pod4, service4, 6, tcp(40000, 80, syn), ""), out(pod4, service4, 6, tcp(40000, 80, syn|ack), ""),
		out(pod6, world6, 6, tcp(40000, 80, fin|ack), ""), out(pod4, service4, 17, udp(40000, 80), ""),
		in(peer4, pod4, 17, udp(53, 40000), ""), in(peer6, pod6, 6, tcp(53, 40000, ack), ""),
	} {
		f.Add(s.frame)
	}
	g := newRig(f, RoleUplink, ModeVPP)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 14 || len(frame) > 3500 {
			return // what the kernel takes for a test run
		}
		g.forget(t)
		// The pod has a connection of the kernel's already.
		known := framed(between(pod4, service4, 17, udp(40000, 53)))
		for _, r := range []Role{RolePod, RoleUplink} {
			g.model.role = r
			if err := g.shim.settings.put(settingRole, uint32(r)); err != nil {
				t.Fatal(err)
			}
			g.runBoth(t, known)
			g.runBoth(t, frame)
			g.runBoth(t, frame)
		}
	})
}
