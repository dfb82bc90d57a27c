package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sidewinder-net/sidewinder/xdp"
)

// Feature is something that the kernel can do or not.
type Feature string

// The features.
const (
	FeatureVeth    Feature = "veth"
	FeaturePacket  Feature = "packet socket"
	FeatureXDP     Feature = "XDP"
	FeatureShim    Feature = "XDP shim"
	FeatureAFXDP   Feature = "AF_XDP"
	FeatureEncap   Feature = "seg6 encap.red"
	FeatureNexthop Feature = "nexthop with seg6"
	FeatureDX6     Feature = "End.DX6"
	FeatureDX4     Feature = "End.DX4"
	FeatureUN      Feature = "uN"
	FeatureVRF     Feature = "VRF"
)

// Features is what came of trying them.
type Features struct {
	// NotTried says why none could be tried; nil when they were.
	NotTried error
	// Errors are the kernel's answers; a feature that works has none.
	Errors map[Feature]error
}

// lack is what the lack of a feature means.
type lack struct {
	verdict       Verdict
	works         string
	consequence   string
	option, since string
}

func lacks() map[Feature]lack {
	return map[Feature]lack{
		FeatureVeth:    {Failure, "a pair was made", "pods cannot be wired", "CONFIG_VETH", ""},
		FeaturePacket:  {Failure, "a socket was opened", "VPP's af_packet needs them", "CONFIG_PACKET", ""},
		FeatureXDP:     {Failure, "the shim was attached to one, in native mode", "VPP's af_xdp needs it; --driver af_packet and --pod-driver af_packet do not", "CONFIG_BPF_SYSCALL", "4.19"},
		FeatureShim:    {Failure, "it was loaded and ran", "VPP's af_xdp needs it; --driver af_packet and --pod-driver af_packet do not", "CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS", shimKernel},
		FeatureAFXDP:   {Failure, "a socket was bound with VPP's settings", "VPP's af_xdp needs them; --driver af_packet and --pod-driver af_packet do not", "CONFIG_XDP_SOCKETS", "5.4"},
		FeatureEncap:   {Warning, "a route was made", "the kernel cannot carry the overlay while VPP is down", "CONFIG_IPV6_SEG6_LWTUNNEL", "6.0"},
		FeatureNexthop: {Warning, "a group was made", "the kernel cannot carry the overlay while VPP is down", "CONFIG_IPV6_SEG6_LWTUNNEL", "5.3"},
		FeatureDX6:     {Warning, "a SID was made", "the kernel does not decapsulate IPv6 while VPP is down", "CONFIG_IPV6_SEG6_LWTUNNEL", "4.14"},
		FeatureDX4:     {Warning, "a SID was made", "the kernel does not decapsulate IPv4 while VPP is down", "CONFIG_IPV6_SEG6_LWTUNNEL", "4.14"},
		FeatureUN:      {Warning, "a SID was made", "the kernel does not pass on packets with several segments while VPP is down", "CONFIG_IPV6_SEG6_LWTUNNEL", "6.1"},
		FeatureVRF:     {Warning, "one was made", "End.DT4 in a table other than main is not possible in the kernel; in the main table End.DX4 serves", "CONFIG_NET_VRF", "4.3"},
	}
}

func feature(name Feature) func(input) []Finding {
	return one(func(in input) Finding { return in.features().judge(name) })
}

func (f Features) judge(name Feature) Finding {
	if f.NotTried != nil {
		return skipped("not tried: %v", f.NotTried)
	}
	l := lacks()[name]
	err := f.Errors[name]
	if err == nil {
		return ok("%s", l.works)
	}
	fix := "use a kernel with " + l.option
	if l.since != "" {
		fix += ", Linux " + l.since + " or later"
	}
	fix += " (a module of that name may have to be loaded)"
	var unsupported *xdp.UnsupportedError
	switch {
	case errors.As(err, &unsupported):
		fix = unsupported.Remedy
		err = fmt.Errorf("%s: %w", unsupported.Feature, unsupported.Err)
	case errors.Is(err, os.ErrPermission):
		fix = "run as root, with the capabilities that the check \"privileges\" names"
	}
	return Finding{Verdict: l.verdict, Found: fmt.Sprintf("%v: %s", err, l.consequence), Fix: fix}
}

// try tries all features in a network namespace that lasts as long as this call.
func try(ctx context.Context) Features {
	done := make(chan Features, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine, and the
		// namespace with the thread.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- Features{NotTried: fmt.Errorf("a network namespace to try it in cannot be made: %w", err)}
			return
		}
		done <- tryHere()
	}()
	select {
	case f := <-done:
		return f
	case <-ctx.Done():
		return Features{NotTried: ctx.Err()}
	}
}

// The links of the namespace.
const (
	tryLink = "try0"
	tryPeer = "try1"
)

// tryHere tries all features in the network namespace of the calling thread, and
// leaves what it made there.
func tryHere() Features {
	f := Features{Errors: map[Feature]error{}}
	note := func(name Feature, err error) {
		if err != nil {
			f.Errors[name] = err
		}
	}
	index, err := vethPair()
	note(FeatureVeth, err)
	note(FeaturePacket, tryPacketSocket())
	note(FeatureShim, xdp.Supported())
	if err == nil {
		note(FeatureXDP, tryXDP(index))
		note(FeatureAFXDP, tryAFXDP(index))
	}
	// Without veth any other interface serves for routes; lo does not.
	if err != nil {
		for _, name := range []Feature{FeatureXDP, FeatureAFXDP, FeatureEncap, FeatureNexthop, FeatureDX6, FeatureDX4, FeatureUN} {
			note(name, fmt.Errorf("no veth to try it on: %w", err))
		}
	} else {
		for name, try := range seg6Tries() {
			note(name, try(index))
		}
	}
	note(FeatureVRF, netlink.LinkAdd(&netlink.Vrf{LinkAttrs: attrs("tryvrf"), Table: 1000}))
	return f
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

func vethPair() (index int, err error) {
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs(tryLink), PeerName: tryPeer}); err != nil {
		return 0, fmt.Errorf("making a veth pair: %w", err)
	}
	for _, name := range []string{tryLink, tryPeer} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return 0, fmt.Errorf("veth pair: %w", err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return 0, fmt.Errorf("veth pair: %w", err)
		}
		if name == tryLink {
			index = l.Attrs().Index
		}
	}
	return index, nil
}

func tryPacketSocket() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("packet socket: %w", err)
	}
	defer unix.Close(fd)
	// The version of the ring that VPP uses.
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return fmt.Errorf("packet socket, TPACKET_V2: %w", err)
	}
	return nil
}
