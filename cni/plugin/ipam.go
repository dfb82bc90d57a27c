package plugin

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// ipamTimeout bounds one run of the IPAM plugin: calico-ipam talks to the API
// server and waits for locks.
const ipamTimeout = 90 * time.Second

// findIPAM looks for the IPAM plugin, before anything is made that it would have
// to undo.
func findIPAM(c *netConf) (path string, err error) {
	path, err = invoke.FindInPath(c.IPAM.Type, filepath.SplitList(os.Getenv("CNI_PATH")))
	if err != nil {
		return "", fail(CodeIPAM, "network "+c.Name, "ipam.type", err.Error(), "install the IPAM plugin there, or name another")
	}
	return path, nil
}

// ipamAdd asks for the pod's addresses. The IPAM plugin gets the whole network
// configuration and this plugin's environment (the pod's names included).
func ipamAdd(ctx context.Context, c *netConf, stdin []byte) (*current.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, ipamTimeout)
	defer cancel()
	r, err := invoke.DelegateAdd(ctx, c.IPAM.Type, stdin, nil)
	if err != nil {
		return nil, ipamError(c.IPAM.Type, "ADD", err)
	}
	res, err := current.NewResultFromResult(r)
	if err != nil {
		return nil, ipamError(c.IPAM.Type, "ADD", err)
	}
	return res, nil
}

// ipamDel gives the addresses back; the specification makes it succeed when
// there are none.
func ipamDel(ctx context.Context, c *netConf, stdin []byte) error {
	ctx, cancel := context.WithTimeout(ctx, ipamTimeout)
	defer cancel()
	if err := invoke.DelegateDel(ctx, c.IPAM.Type, stdin, nil); err != nil {
		return ipamError(c.IPAM.Type, "DEL", err)
	}
	return nil
}

// ipamDelFor gives back the addresses of an attachment other than the one that
// the environment names.
func ipamDelFor(ctx context.Context, c *netConf, stdin []byte, containerID, ifName string) error {
	ctx, cancel := context.WithTimeout(ctx, ipamTimeout)
	defer cancel()
	path, err := findIPAM(c)
	if err != nil {
		return err
	}
	args := &invoke.Args{Command: "DEL", ContainerID: containerID, IfName: ifName, Path: os.Getenv("CNI_PATH")}
	if err := invoke.ExecPluginWithoutResult(ctx, path, stdin, args, nil); err != nil {
		return ipamError(c.IPAM.Type, "DEL", err)
	}
	return nil
}

func ipamCheck(ctx context.Context, c *netConf, stdin []byte) error {
	ctx, cancel := context.WithTimeout(ctx, ipamTimeout)
	defer cancel()
	if err := invoke.DelegateCheck(ctx, c.IPAM.Type, stdin, nil); err != nil {
		return ipamError(c.IPAM.Type, "CHECK", err)
	}
	return nil
}

// ipamStatus passes the IPAM plugin's own code on where it is one of STATUS.
func ipamStatus(ctx context.Context, c *netConf, stdin []byte) error {
	ctx, cancel := context.WithTimeout(ctx, ipamTimeout)
	defer cancel()
	err := invoke.DelegateStatus(ctx, c.IPAM.Type, stdin, nil)
	if err == nil || unknownCommand(err) {
		return nil
	}
	out := ipamError(c.IPAM.Type, "STATUS", err)
	out.Code = types.ErrPluginNotAvailable
	var e *types.Error
	if errors.As(err, &e) && e.Code == types.ErrLimitedConnectivity {
		out.Code = e.Code
	}
	return out
}

func ipamGC(ctx context.Context, c *netConf, stdin []byte) error {
	ctx, cancel := context.WithTimeout(ctx, ipamTimeout)
	defer cancel()
	if err := invoke.DelegateGC(ctx, c.IPAM.Type, stdin, nil); err != nil && !unknownCommand(err) {
		return ipamError(c.IPAM.Type, "GC", err)
	}
	return nil
}

// unknownCommand: a plugin from before CNI 1.1 knows neither STATUS nor GC, and
// has nothing to say to them.
func unknownCommand(err error) bool {
	var e *types.Error
	return errors.As(err, &e) && e.Code == types.ErrInvalidEnvironmentVariables && strings.Contains(e.Msg, "unknown CNI_COMMAND")
}
