package plugin

import (
	"context"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/sidewinder-net/sidewinder/cni/client"
)

// Status tells whether an ADD could succeed: code 50 when it could not (the
// agent is down or not ready, the IPAM plugin not available).
func (p *Plugin) Status(ctx context.Context, args *skel.CmdArgs) error {
	conf, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	agent := client.New(conf.Socket)
	defer agent.Close()
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := agent.Ready(probe); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	node, err := agent.Config(probe)
	if err != nil {
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	if _, err := conf.mtu(node); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	return ipamStatus(ctx, conf, args.StdinData)
}
