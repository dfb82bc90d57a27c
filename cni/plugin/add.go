// Package plugin is the CNI plugin's work: one method for each command of the
// CNI specification (1.1). It keeps nothing between runs; names derive from the
// attachment, the records are the agent's, the addresses the IPAM plugin's.
package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sidewinder-net/sidewinder/cni/api"
	"github.com/sidewinder-net/sidewinder/cni/client"
)

const (
	// probeTimeout is for what a live agent answers from memory: together with
	// the plugin's own start it stays within a second.
	probeTimeout = 700 * time.Millisecond
	// wireTimeout is for what waits for the dataplane. It is longer than the
	// agent's own limit, and well within the runtime's.
	wireTimeout = api.WireTimeout
	// undoTimeout bounds cleaning up after a failure, which goes on when the
	// runtime has given up; forgetTimeout is the agent's part of it.
	undoTimeout   = 20 * time.Second
	forgetTimeout = undoTimeout / 2
)

// Plugin carries out the commands.
type Plugin struct {
	out, log io.Writer
}

// New returns a plugin that writes results to out, and remarks for the
// runtime's log to log.
func New(out, log io.Writer) *Plugin { return &Plugin{out: out, log: log} }

// adding is one ADD under way.
type adding struct {
	*Plugin
	conf  *netConf
	stdin []byte
	agent *client.Client
	node  api.NodeConfig
	mtu   int
	attachment

	// What this run has set its hands to, and must undo.
	linked, addressed, posted bool
}

// Add makes the pod's interface. Nothing is made before the agent has answered;
// whatever fails later is undone, as far as the dataplane lets go of the pod. A repeated ADD answers the same again.
func (p *Plugin) Add(ctx context.Context, args *skel.CmdArgs) error {
	conf, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	if conf.RawPrevResult != nil {
		return fail(types.ErrInvalidNetworkConfig, "network "+conf.Name, "prevResult", "another plugin has made the interface already",
			"put \"sidewinder\" first in the list of plugins")
	}
	att, err := parseAttachment(conf, args)
	if err != nil {
		return err
	}
	a := &adding{Plugin: p, conf: conf, stdin: args.StdinData, agent: client.New(conf.Socket), attachment: att}
	defer a.agent.Close()

	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if a.node, err = a.agent.Config(probe); err != nil {
		return agentError(err)
	}
	if a.mtu, err = conf.mtu(a.node); err != nil {
		return err
	}
	record, err := a.agent.Endpoint(probe, a.containerID, a.ifName)
	known := err == nil
	if err != nil && !errors.Is(err, client.ErrNotFound) {
		return agentError(err)
	}
	if known {
		if res := a.intact(record); res != nil {
			// The dataplane holds it still, or again after a restart.
			wait, cancel := context.WithTimeout(ctx, wireTimeout)
			defer cancel()
			if err := a.agent.AddEndpoint(wait, record); err != nil {
				return agentError(err)
			}
			return a.print(res)
		}
	}
	if _, err := findIPAM(conf); err != nil {
		return err
	}
	podNS, err := openNetns(a.attachment)
	if err != nil {
		return err
	}
	defer podNS.Close()
	if err := a.clean(ctx, known); err != nil {
		return err
	}
	res, failed := a.wire(ctx, podNS)
	if failed == nil {
		if failed = a.print(res); failed == nil {
			return nil
		}
	}
	return joined(cniError(failed), a.undo(ctx))
}

// intact gives the answer of an earlier ADD, when what that made is still all
// there; else nil.
func (a *adding) intact(ep api.Endpoint) *current.Result {
	res := &current.Result{}
	if len(ep.Result) == 0 || json.Unmarshal(ep.Result, res) != nil || ep.Netns != a.netns || ep.Network != a.network || ep.MTU != a.mtu {
		return nil
	}
	want, err := planFrom(res.IPs, res.Routes)
	if err != nil || !slices.Equal(want.ips, ep.IPs) || verify(a.attachment, want, a.mtu) != nil {
		return nil
	}
	return res
}

// clean removes what an ADD left behind that was broken off. The veth pair is
// made first and removed last but for the address, so it tells of the rest.
func (a *adding) clean(ctx context.Context, known bool) error {
	name := HostInterface(a.containerID, a.ifName)
	link, err := hostEnd(name)
	if err != nil {
		return err
	}
	if link == nil && !known {
		return nil
	}
	return a.remove(ctx)
}

// undo is remove for what a failed ADD has made: it does not end with the
// runtime's patience. While the dataplane may hold the pod, its address is not
// given back, and the link stays as the mark by which the next ADD, DEL or GC
// finds the remains.
func (a *adding) undo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if a.posted {
		if err := a.unpost(ctx); err != nil {
			return fmt.Errorf("the pod's link and addresses stay until the next ADD, DEL or GC: %w", err)
		}
	}
	var errs []error
	if a.linked {
		errs = append(errs, deleteLink(HostInterface(a.containerID, a.ifName)))
	}
	if a.addressed {
		errs = append(errs, ipamDel(ctx, a.conf, a.stdin))
	}
	return errors.Join(errs...)
}

// unpost makes the agent and the dataplane let go of the pod; without any agent
// it is like Del.
func (a *adding) unpost(ctx context.Context) error {
	forget, cancel := context.WithTimeout(ctx, forgetTimeout)
	defer cancel()
	err := a.agent.DeleteEndpoint(forget, a.containerID, a.ifName)
	var unreachable *client.UnreachableError
	if errors.As(err, &unreachable) {
		return a.withoutAgent(unreachable)
	}
	return err
}

// remove takes the attachment away; nothing is released that the dataplane may
// still use.
func (a *adding) remove(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, wireTimeout)
	defer cancel()
	if err := a.agent.DeleteEndpoint(wait, a.containerID, a.ifName); err != nil {
		return agentError(err)
	}
	return release(HostInterface(a.containerID, a.ifName), func() error { return ipamDel(ctx, a.conf, a.stdin) })
}

// wire makes everything: the link, which is also the mark that an ADD is under
// way, then the addresses, then the agent's record.
func (a *adding) wire(ctx context.Context, podNS ns.NetNS) (*current.Result, error) {
	host, err := createVeth(a.attachment, podNS, a.mtu)
	if err != nil {
		return nil, err
	}
	a.linked, a.addressed = true, true
	given, err := ipamAdd(ctx, a.conf, a.stdin)
	if err != nil {
		// The address of an ADD that was broken off, whose link went with an
		// earlier namespace: host-local refuses to give it twice.
		if ipamDel(ctx, a.conf, a.stdin) != nil {
			return nil, err
		}
		if given, err = ipamAdd(ctx, a.conf, a.stdin); err != nil {
			return nil, err
		}
	}
	want, err := planFrom(given.IPs, given.Routes)
	if err != nil {
		return nil, fail(CodeIPAM, "IPAM plugin "+a.conf.IPAM.Type, "result", err.Error(), "correct the ipam part of the network configuration")
	}
	if err := raiseHost(host); err != nil {
		return nil, err
	}
	if err := configurePod(podNS, a.ifName, want, a.node); err != nil {
		return nil, err
	}
	dns := a.conf.DNS
	if dns.IsEmpty() {
		dns = given.DNS
	}
	hostName, mac := host.Attrs().Name, podMAC(a.containerID, a.ifName).String()
	res := want.result(
		&current.Interface{Name: hostName, Mac: api.GatewayMAC, Mtu: a.mtu},
		&current.Interface{Name: a.ifName, Mac: mac, Mtu: a.mtu, Sandbox: a.netns}, dns)
	raw, err := json.Marshal(res)
	if err != nil {
		return nil, fail(types.ErrInternal, "result", "", err.Error(), "")
	}
	wait, cancel := context.WithTimeout(ctx, wireTimeout)
	defer cancel()
	a.posted = true
	err = a.agent.AddEndpoint(wait, api.Endpoint{
		ContainerID: a.containerID, IfName: a.ifName, Netns: a.netns,
		Namespace: a.namespace, Name: a.pod, UID: a.uid,
		HostInterface: hostName, HostMAC: api.GatewayMAC, PodMAC: mac,
		IPs: want.ips, MTU: a.mtu, WholeChecksums: a.node.DisableTxChecksum, Network: a.network, Result: raw,
	})
	if err != nil {
		return nil, agentError(err)
	}
	return res, nil
}

// print writes the result as the version that the configuration asks for.
func (a *adding) print(res *current.Result) error {
	out, err := res.GetAsVersion(a.conf.CNIVersion)
	if err == nil {
		err = out.PrintTo(a.out)
	}
	if err != nil {
		return fail(types.ErrIOFailure, "result", "", err.Error(), "")
	}
	return nil
}

func cniError(err error) *types.Error {
	var e *types.Error
	if errors.As(err, &e) {
		return e
	}
	return types.NewError(types.ErrInternal, err.Error(), "")
}
