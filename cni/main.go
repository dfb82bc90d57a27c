// Command sidewinder-cni is the CNI plugin (network type "sidewinder"): it makes
// a pod's interface and hands it to the agent on the same node.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/sidewinder-net/sidewinder/cni/plugin"
)

func main() {
	// A runtime that ends the plugin in order gets everything undone.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Go dies of SIGPIPE on standard output, and then nothing would be undone. With
	// a handler the write fails instead. Ignore would be inherited by the IPAM
	// plugin.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	p := plugin.New(os.Stdout, os.Stderr)
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add:    func(a *skel.CmdArgs) error { return p.Add(ctx, a) },
		Del:    func(a *skel.CmdArgs) error { return p.Del(ctx, a) },
		Check:  func(a *skel.CmdArgs) error { return p.Check(ctx, a) },
		Status: func(a *skel.CmdArgs) error { return p.Status(ctx, a) },
		GC:     func(a *skel.CmdArgs) error { return p.GC(ctx, a) },
	}, version.PluginSupports(plugin.Versions...), about())
}

func about() string {
	v := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	return "sidewinder-cni " + v + ": CNI plugin of Sidewinder, SRv6 between Kubernetes nodes"
}
