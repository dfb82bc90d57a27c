package vpp

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// DriverTap: a TAP device that VPP makes in the pod, in the veth's place. It is
// refused: the CNI plugin makes a veth, and the kernel, which stands ready for
// VPP, could not reach a pod without one.
const DriverTap = "tap"

// vhostNet is the device behind VPP's TAP interfaces.
const vhostNet = "/dev/vhost-net"

// refuseTap says why there is no TAP driver, beginning with what lacks on this
// machine.
func refuseTap(device string) error {
	const instead = "use af_xdp or af_packet"
	_, err := os.Stat(device)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: VPP needs %s, which this kernel does not have (module vhost_net); %s", dataplane.ErrUnsupported, device, instead)
	case err != nil:
		return fmt.Errorf("%w: %w; %s", dataplane.ErrUnsupported, err, instead)
	}
	return fmt.Errorf("%w: pods get a veth from the CNI plugin, by which the kernel takes over when VPP is down; %s", dataplane.ErrUnsupported, instead)
}
