package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sidewinder-net/sidewinder/agent/status"
	"github.com/sidewinder-net/sidewinder/test/lab/fabric"
	"github.com/sidewinder-net/sidewinder/test/lab/ns"
	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
	"github.com/sidewinder-net/sidewinder/test/lab/tree"
)

// servicePort of the services that World makes.
const servicePort = 80

// Service addresses that World makes, by the place of their backend.
var (
	serviceNear = map[bool]netip.Addr{true: netip.MustParseAddr("10.96.0.10"), false: netip.MustParseAddr("fd10:96::10")}
	serviceFar  = map[bool]netip.Addr{true: netip.MustParseAddr("10.96.0.20"), false: netip.MustParseAddr("fd10:96::20")}
)

// Way is one that traffic of a cluster takes beside that between pods.
type Way struct {
	// Name says what is tried: "pod to a service on another node, IPv4".
	Name string
	// From is a namespace.
	From string
	To   netip.AddrPort
}

// World is a cluster's surroundings: the nodes' own programs, services that the
// nodes' kernels translate, and a host outside.
type World struct {
	Ways  []Way
	echos []*traffic.Echo
}

// Surround gives node a, which needs two pods, and node b, which needs one,
// echo servers, services and masquerading, and the lab a host outside.
func (l *Lab) Surround(a, b *Node) (*World, error) {
	if len(a.Pods()) < 2 || len(b.Pods()) < 1 {
		return nil, fmt.Errorf("%s has %d pods and %s %d; want 2 and 1", a.Name, len(a.Pods()), b.Name, len(b.Pods()))
	}
	if err := l.fabric.AddOutside(); err != nil {
		return nil, err
	}
	w := &World{}
	for _, where := range []string{a.Name, b.Name, fabric.OutsideName} {
		e, err := traffic.NewEcho(where)
		if err != nil {
			w.Close()
			return nil, err
		}
		w.echos = append(w.echos, e)
	}
	client, near, far := a.Pods()[0], a.Pods()[1], b.Pods()[0]
	remote, err := a.translatesAnswers()
	if err != nil {
		w.Close()
		return nil, err
	}
	var services []Service
	for _, v4 := range []bool{true, false} {
		name := map[bool]int{true: 4, false: 6}[v4]
		c, okC := client.Addr(name)
		n, okN := near.Addr(name)
		f, okF := far.Addr(name)
		if !okC || !okN || !okF {
			continue
		}
		services = append(services,
			Service{VIP: serviceNear[v4], Port: servicePort, Backend: netip.AddrPortFrom(n, traffic.EchoPort)},
			Service{VIP: serviceFar[v4], Port: servicePort, Backend: netip.AddrPortFrom(f, traffic.EchoPort)})
		hostA, hostB, outside := a.Underlay(), b.Underlay(), fabric.OutsideAddr()
		if v4 {
			hostA, hostB, outside = fabric.NodeAddr4(a.ID), fabric.NodeAddr4(b.ID), fabric.OutsideAddr4()
		}
		for _, way := range []struct {
			what, from string
			to         netip.Addr
			port       uint16
			untried    bool
		}{
			{"host to a pod of its own", a.Name, c, traffic.EchoPort, false},
			{"host to a pod on another node", a.Name, f, traffic.EchoPort, false},
			{"other host to the pod", b.Name, c, traffic.EchoPort, false},
			{"pod to its own host", client.Name, hostA, traffic.EchoPort, false},
			{"pod to another host", client.Name, hostB, traffic.EchoPort, false},
			{"pod to a service on its own node", client.Name, serviceNear[v4], servicePort, false},
			{"pod to a service on another node", client.Name, serviceFar[v4], servicePort, !remote},
			{"host to a service on its own node", a.Name, serviceNear[v4], servicePort, false},
			{"host to a service on another node", a.Name, serviceFar[v4], servicePort, !remote},
			{"pod to a host outside, masqueraded", client.Name, outside, traffic.EchoPort, false},
		} {
			if way.untried {
				continue
			}
			w.Ways = append(w.Ways, Way{Name: fmt.Sprintf("%s, IPv%d", way.what, name), From: way.from, To: netip.AddrPortFrom(way.to, way.port)})
		}
	}
	if err := a.SetNAT(services...); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// translatesAnswers tells whether the node's kernel can translate the answers that
// come back from another node. That needs a switch of the whole machine's, which
// an agent in a user namespace cannot turn on; as root it has to.
func (n *Node) translatesAnswers() (bool, error) {
	in, _ := tree.Current()
	if !in.Rootless {
		return true, nil
	}
	on := false
	err := ns.Do(n.Name, func() error {
		raw, err := os.ReadFile("/proc/sys/net/netfilter/nf_hooks_lwtunnel")
		on = strings.TrimSpace(string(raw)) == "1"
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
	return on, err
}

// Try goes every way by TCP, a few bytes and BulkBytes. It counts those that
// work and names those that do not.
func (w *World) Try(ctx context.Context) (worked int, err error) {
	errs := make([]error, len(w.Ways))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, way := range w.Ways {
		g.Go(func() error {
			for _, size := range []int{32, traffic.BulkBytes} {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err := traffic.EchoTCP(way.From, way.To, size); err != nil {
					errs[i] = fmt.Errorf("%s (%s to %s): %w", way.Name, way.From, way.To, err)
					return nil
				}
			}
			return nil
		})
	}
	err = g.Wait()
	for _, e := range errs {
		if e == nil {
			worked++
		}
	}
	return worked, errors.Join(err, errors.Join(errs...))
}

// Close ends the echo servers.
func (w *World) Close() {
	for _, e := range w.echos {
		e.Close()
	}
}

// KeptByKernel wants a VPP node's shims to have left traffic to the kernel since
// an earlier status: what goes to the host and to services by their destination,
// and the answers of connections that the kernel translated by their flow.
func KeptByKernel(before, after status.Status) error {
	var errs []error
	for _, verdict := range []string{"kernel-table", "kernel-flow"} {
		if shimPackets(after, verdict) <= shimPackets(before, verdict) {
			errs = append(errs, fmt.Errorf("%s: the shims left no packet to the kernel as %s", after.Node, verdict))
		}
	}
	return errors.Join(errs...)
}

// shimPackets are a node's packets by a verdict, of all its links.
func shimPackets(s status.Status, verdict string) (n uint64) {
	for _, l := range s.Dataplane.Links {
		n += l.Packets[verdict]
	}
	return n
}
