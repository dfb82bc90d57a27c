package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/sidewinder-net/sidewinder/test/lab/fabric"
	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
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
		}{
			{"host to a pod of its own", a.Name, c, traffic.EchoPort},
			{"host to a pod on another node", a.Name, f, traffic.EchoPort},
			{"other host to the pod", b.Name, c, traffic.EchoPort},
			{"pod to its own host", client.Name, hostA, traffic.EchoPort},
			{"pod to another host", client.Name, hostB, traffic.EchoPort},
			{"pod to a service on its own node", client.Name, serviceNear[v4], servicePort},
			{"pod to a service on another node", client.Name, serviceFar[v4], servicePort},
			{"host to a service on its own node", a.Name, serviceNear[v4], servicePort},
			{"host to a service on another node", a.Name, serviceFar[v4], servicePort},
			{"pod to a host outside, masqueraded", client.Name, outside, traffic.EchoPort},
		} {
			w.Ways = append(w.Ways, Way{Name: fmt.Sprintf("%s, IPv%d", way.what, name), From: way.from, To: netip.AddrPortFrom(way.to, way.port)})
		}
	}
	if err := a.SetNAT(services...); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
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
