package plugin

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/sidewinder-net/sidewinder/cni/client"
)

// Del takes the pod's interface away. It succeeds when there is nothing (left)
// to take away: the agent has forgotten the pod, the namespace or the link is
// gone, the address is released.
//
// While the agent is down it depends on the socket. A socket that nobody
// answers belongs to an agent that has crashed or hangs: the dataplane may still
// send to the pod, so its address must not be given to another; Del fails at
// once and the runtime tries again. Where there is no socket at all the agent
// was stopped in order or has been uninstalled, and a node must still be
// drainable: Del removes the link and releases the address. An agent that comes
// back after that drops the record by itself, because link and namespace are
// gone, before it takes new pods.
func (p *Plugin) Del(ctx context.Context, args *skel.CmdArgs) error {
	conf, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	agent := client.New(conf.Socket)
	defer agent.Close()
	if err := p.forget(ctx, agent, args.ContainerID, args.IfName); err != nil {
		return err
	}
	return release(HostInterface(args.ContainerID, args.IfName), func() error { return ipamDel(ctx, conf, args.StdinData) })
}

// release removes the link and gives the address back, both at once: the
// dataplane has let go of the pod, so neither depends on the other, and the
// kernel's wait for a link's last packets is most of DEL's time.
func release(link string, giveBack func() error) error {
	address := make(chan error, 1)
	go func() { address <- giveBack() }()
	linkErr := deleteLink(link)
	err := <-address
	switch {
	case linkErr == nil:
		return err
	case err == nil:
		return linkErr
	}
	return joined(cniError(linkErr), err)
}

// forget makes the agent and the dataplane let go of an attachment.
func (p *Plugin) forget(ctx context.Context, agent *client.Client, containerID, ifName string) error {
	// A hung agent is told from a busy one by a question that costs nothing.
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := agent.Endpoint(probe, containerID, ifName)
	var unreachable *client.UnreachableError
	if errors.As(err, &unreachable) {
		return p.withoutAgent(unreachable)
	}
	// Also when the agent does not know it: the dataplane may be about to let
	// go of it only now.
	wait, cancel := context.WithTimeout(ctx, wireTimeout)
	defer cancel()
	if err := agent.DeleteEndpoint(wait, containerID, ifName); err != nil {
		return agentError(err)
	}
	return nil
}

// withoutAgent decides whether to go on without an agent: see Del.
func (p *Plugin) withoutAgent(e *client.UnreachableError) error {
	if !e.Absent {
		return agentError(e)
	}
	fmt.Fprintf(p.log, "sidewinder-cni: %v: going on without the agent\n", e)
	return nil
}
