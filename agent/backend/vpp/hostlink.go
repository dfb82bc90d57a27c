package vpp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// hostLink is what the drivers have in common that share a kernel link: the
// host's uplink, or the host's end of a pod's veth.

// planHostLink finds the link and, where it is a pod's, brings it into line. An
// uplink belongs to the host, and is followed.
func (a *applier) planHostLink(name string, want dataplane.Interface) (p plan, fatal, err error) {
	link, err := findLink(name)
	if err != nil {
		return p, nil, fmt.Errorf("%w: link %q: %w", dataplane.ErrNotReady, name, err)
	}
	switch {
	case want.Role == dataplane.RolePod:
		if fatal, err := a.ensureLoopback(); fatal != nil || err != nil {
			return p, fatal, err
		}
		if err := a.checkFrames(want.MTU); err != nil {
			return p, nil, fmt.Errorf("link %q: %w", name, err)
		}
		if link, err = preparePodLink(link, want); err != nil {
			return p, nil, fmt.Errorf("link %q: %w", name, err)
		}
	case !link.up:
		return p, nil, fmt.Errorf("%w: link %q is down", dataplane.ErrNotReady, name)
	case !want.MAC.IsZero() && want.MAC != link.mac:
		// VPP would change the host's own address with it.
		return p, nil, fmt.Errorf("%w: MAC %s: link %q has %s, and its address is the host's to choose", dataplane.ErrUnsupported, want.MAC, name, link.mac)
	}
	p = plan{name: name, want: want, link: link, mac: want.MAC, mtu: want.MTU}
	p.tag = tag{role: string(want.Role), name: name, ifindex: link.index}
	if p.mac.IsZero() {
		p.mac, p.tag = link.mac, p.tag.with(flagMACAsIs, true)
	}
	if p.mtu == 0 {
		p.mtu, p.tag = uint16(min(link.mtu, 65535)), p.tag.with(flagMTUAsIs, true)
	}
	return p, nil, nil
}

// intact: the link is the one that VPP took, and both ends of it agree.
func (link linkInfo) intact(h held) bool {
	if link.index != h.tag.ifindex || !link.up {
		return false
	}
	mac, mtu := link.mac == dataplane.MAC(h.MAC), link.mtu == int(h.MTU)
	if h.tag.role == string(dataplane.RoleUplink) {
		return (mac || !h.tag.has(flagMACAsIs)) && (mtu || !h.tag.has(flagMTUAsIs))
	}
	return mac && mtu
}

// What a frame in an AF_XDP buffer has beside the IP packet, in bytes.
const (
	// xdpHeadroom is the kernel's, before the frame (XDP_PACKET_HEADROOM).
	xdpHeadroom    = 256
	ethernetHeader = 14
	// encapOverhead is an IPv6 header without SRH (H.Encaps.Red, RFC 8986 §5.2).
	encapOverhead = 40
)

// ErrFrameSize: packets of this MTU would be larger than what VPP receives by
// AF_XDP, and be dropped by the kernel without a word.
var ErrFrameSize = errors.New("packets do not fit VPP's buffers")

// checkFrames refuses a pod's MTU whose packets would not fit: as they come from
// the pod, and encapsulated as they come from other nodes.
func (a *applier) checkFrames(mtu uint16) error {
	var size int
	var whose string
	switch {
	case a.opts.UplinkDriver == DriverAFXDP:
		size, whose = int(mtu)+encapOverhead, "encapsulated for other nodes"
	case a.opts.PodDriver == DriverAFXDP:
		size, whose = int(mtu), "as the pod sends them"
	default:
		return nil
	}
	data, err := a.bufferData()
	if err != nil {
		return err
	}
	if limit := data - xdpHeadroom - ethernetHeader; size > limit {
		return fmt.Errorf("%w: %w: MTU %d: packets have up to %d bytes %s, and AF_XDP gives VPP up to %d with its buffers of %d: "+
			"set podMTU to %d or less on all nodes, give VPP buffers of %d or more (up to 3840; buffers { default data-size } in its configuration), or use af_packet",
			dataplane.ErrUnsupported, ErrFrameSize, mtu, size, whose, limit, data, int(mtu)-(size-limit), size+xdpHeadroom+ethernetHeader)
	}
	return nil
}

// bufferData is how many bytes of data VPP's smallest buffers have, asked once.
func (a *applier) bufferData() (int, error) {
	if a.buffers != 0 {
		return a.buffers, nil
	}
	var text string
	if err := do(a.ctx, a.c, binapi.CLI("show buffers", &text)); err != nil {
		return 0, err
	}
	n, ok := bufferDataOf(text)
	if !ok {
		return 0, fmt.Errorf("VPP's \"show buffers\" is not what this program knows: %q", text)
	}
	a.buffers = n
	return n, nil
}

// bufferDataOf reads the column "Data Size", the fifth from the end, of a table
// with a line for each pool.
func bufferDataOf(table string) (int, bool) {
	least := 0
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 9 {
			continue
		}
		n, err := strconv.Atoi(f[len(f)-5])
		if err == nil && n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return least, least > 0
}
