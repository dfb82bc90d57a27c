package main_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/stretchr/testify/require"
)

// BenchmarkAddDel runs ADD and DEL of this plugin and of the ptp reference
// plugin, both with host-local, side by side: each sub-benchmark's operation is
// one ADD and one DEL, and "ratio" runs the two in turn and reports how many
// times ptp's time this plugin takes (below 1: faster). The agent's dataplane is
// a stub: this is the plugin's and the server's own cost.
func BenchmarkAddDel(b *testing.B) {
	n := newNode(b)
	pod := newNS(b)
	ipam := func(kind string) map[string]any {
		c := n.hostLocal()
		c["dataDir"] = filepath.Join(n.dir, "ipam-"+kind)
		// One family, which both plugins configure without waiting: ptp waits
		// for duplicate address detection with IPv6.
		c["ranges"] = []any{[]any{map[string]any{"subnet": "10.42.0.0/16"}}}
		c["routes"] = []any{map[string]any{"dst": "0.0.0.0/0"}}
		return c
	}
	lists := map[string]*libcni.NetworkConfigList{
		"sidewinder": n.network("net1", "1.1.0", "sidewinder", ipam("sidewinder"), nil),
		"ptp":        n.network("net2", "1.1.0", "ptp", ipam("ptp"), nil),
	}
	serial := 0
	one := func(b *testing.B, kind string) (add, del time.Duration) {
		serial++
		rt := runtimeConf(fmt.Sprintf("bench%d", serial), pod.Path())
		// The node's namespace is entered outside the measured time.
		require.NoError(b, n.ns.Do(func(ns.NetNS) error {
			start := time.Now()
			if _, err := n.cni.AddNetworkList(context.Background(), lists[kind], rt); err != nil {
				return err
			}
			add = time.Since(start)
			start = time.Now()
			err := n.cni.DelNetworkList(context.Background(), lists[kind], rt)
			del = time.Since(start)
			return err
		}))
		return add, del
	}
	for _, kind := range []string{"sidewinder", "ptp"} {
		b.Run(kind, func(b *testing.B) {
			var adds, dels time.Duration
			for b.Loop() {
				add, del := one(b, kind)
				adds, dels = adds+add, dels+del
			}
			b.ReportMetric(ms(adds, b.N), "ms/add")
			b.ReportMetric(ms(dels, b.N), "ms/del")
		})
	}
	b.Run("ratio", func(b *testing.B) {
		total := map[string][2]time.Duration{}
		for b.Loop() {
			for _, kind := range []string{"sidewinder", "ptp"} {
				add, del := one(b, kind)
				t := total[kind]
				total[kind] = [2]time.Duration{t[0] + add, t[1] + del}
			}
		}
		s, p := total["sidewinder"], total["ptp"]
		b.ReportMetric(float64(s[0]+s[1])/float64(p[0]+p[1]), "ratio")
		b.ReportMetric(float64(s[0])/float64(p[0]), "ratio-add")
		b.ReportMetric(float64(s[1])/float64(p[1]), "ratio-del")
	})
}

func ms(d time.Duration, n int) float64 { return d.Seconds() * 1000 / float64(n) }
