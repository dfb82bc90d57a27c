package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/sidewinder-net/sidewinder/cni/client"
)

// stale is an attachment that the runtime does not know any more.
type stale struct {
	containerID, ifName string
	// link is the host end's name; the others are empty when only it is known.
	link string
}

// GC removes all attachments of this network that are not in the runtime's
// list: the agent's records and the host ends that carry this network's mark.
// Other networks' and other programs' interfaces are left alone. Everything is
// tried; the errors are joined.
func (p *Plugin) GC(ctx context.Context, args *skel.CmdArgs) error {
	conf, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	valid, err := validAttachments(conf, args.StdinData)
	if err != nil {
		return err
	}
	agent := client.New(conf.Socket)
	defer agent.Close()
	found, agentHere, err := p.findStale(ctx, conf, agent, valid)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range found {
		if err := p.collect(ctx, conf, args.StdinData, agent, agentHere, s); err != nil {
			errs = append(errs, err)
		}
	}
	if err := ipamGC(ctx, conf, args.StdinData); err != nil {
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil
	}
	first := cniError(errs[0])
	return types.NewError(first.Code, errors.Join(errs...).Error(), "")
}

// validAttachments are those to keep. No list at all is not an empty list: it
// would mean to remove everything.
func validAttachments(conf *netConf, stdin []byte) (map[stale]bool, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(stdin, &keys); err != nil {
		return nil, fail(types.ErrDecodingFailure, "network "+conf.Name, "", err.Error(), "")
	}
	if _, ok := keys["cni.dev/valid-attachments"]; !ok {
		return nil, fail(types.ErrInvalidNetworkConfig, "network "+conf.Name, "cni.dev/valid-attachments", "is missing",
			"the runtime must list the attachments to keep, even if there are none")
	}
	valid := map[stale]bool{}
	for _, v := range conf.ValidAttachments {
		valid[newStale(v.ContainerID, v.IfName)] = true
	}
	return valid, nil
}

func newStale(containerID, ifName string) stale {
	return stale{containerID, ifName, HostInterface(containerID, ifName)}
}

// findStale joins the agent's records with the links, sorted by link.
func (p *Plugin) findStale(ctx context.Context, conf *netConf, agent *client.Client, valid map[stale]bool) (found []stale, agentHere bool, err error) {
	byLink := map[string]stale{}
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	eps, err := agent.Endpoints(probe)
	var unreachable *client.UnreachableError
	switch {
	case errors.As(err, &unreachable):
		if err := p.withoutAgent(unreachable); err != nil {
			return nil, false, err
		}
	case err != nil:
		return nil, false, agentError(err)
	default:
		agentHere = true
	}
	for _, ep := range eps {
		if ep.Network == conf.Name {
			s := newStale(ep.ContainerID, ep.IfName)
			byLink[s.link] = s
		}
	}
	links, err := leftovers(conf.Name)
	if err != nil {
		return nil, false, err
	}
	for name, id := range links {
		if _, known := byLink[name]; !known {
			byLink[name] = stale{id[0], id[1], name}
		}
	}
	for s := range valid {
		delete(byLink, s.link)
	}
	for _, name := range slices.Sorted(maps.Keys(byLink)) {
		found = append(found, byLink[name])
	}
	return found, agentHere, nil
}

// collect removes one attachment as DEL does. A long container ID may be known
// to nobody any more; then the IPAM plugin's own GC has to find its address.
func (p *Plugin) collect(ctx context.Context, conf *netConf, stdin []byte, agent *client.Client, agentHere bool, s stale) error {
	if agentHere && s.containerID != "" {
		wait, cancel := context.WithTimeout(ctx, wireTimeout)
		defer cancel()
		if err := agent.DeleteEndpoint(wait, s.containerID, s.ifName); err != nil {
			return agentError(err)
		}
	}
	return release(s.link, func() error {
		if s.containerID == "" {
			return nil
		}
		return ipamDelFor(ctx, conf, stdin, s.containerID, s.ifName)
	})
}
