package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/agent/backend/vpp"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/test/bench"
)

// programVPP measures the backend and the raw API by turns on one VPP. Only
// policies and steering are programmed: they need no interface.
func programVPP(ctx context.Context, o options, manager string, full dataplane.State) error {
	dir, err := os.MkdirTemp("", "sidewinder-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, manager, "run", "--run-dir", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()
	socket := filepath.Join(dir, "api.sock")
	conn, err := dial(ctx, socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	log := logrus.New()
	log.SetOutput(io.Discard)
	be, err := vpp.New(ctx, vpp.Options{Socket: socket, Locator: bench.Block, Log: logrus.NewEntry(log)})
	if err != nil {
		return err
	}
	defer be.Close()

	want := dataplane.New()
	want.Policies, want.Steerings = full.Policies, full.Steerings
	add, remove := dataplane.Diff(want, dataplane.New()), dataplane.Diff(dataplane.New(), want)
	raw := series{name: "VPP: raw pipelined binary API"}
	ours := series{name: "VPP: backend, the same objects"}
	dump := series{name: "VPP: backend, full dump"}
	del := series{name: "VPP: backend, removing them again"}
	for range o.rounds {
		if err := raw.time(func() error { return program(ctx, conn, want, false) }); err != nil {
			return err
		}
		if err := program(ctx, conn, want, true); err != nil {
			return err
		}
		if err := ours.time(func() error { return be.Apply(ctx, add) }); err != nil {
			return err
		}
		if err := dump.time(func() error {
			got, err := be.Dump(ctx)
			if err == nil && (len(got.Policies) != len(want.Policies) || len(got.Steerings) != len(want.Steerings)) {
				return fmt.Errorf("VPP holds %d policies and %d steering entries", len(got.Policies), len(got.Steerings))
			}
			return err
		}); err != nil {
			return err
		}
		if err := del.time(func() error { return be.Apply(ctx, remove) }); err != nil {
			return err
		}
	}
	for _, s := range []*series{&raw, &ours, &dump, &del} {
		s.print()
	}
	fmt.Printf("  backend / raw: %.2f (aim: at most 1.5)   VPP %s\n", float64(ours.median())/float64(raw.median()), conn.Version())
	return nil
}

func dial(ctx context.Context, socket string) (*binapi.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := binapi.Dial(ctx, binapi.Options{Socket: socket})
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// program sends one request for each object, without looking at anything.
func program(ctx context.Context, conn *binapi.Conn, s dataplane.State, del bool) error {
	var policies, steerings []*binapi.Call
	for k, p := range s.Policies {
		if del {
			policies = append(policies, binapi.SRPolicyDel(k.BSID))
			continue
		}
		call, err := binapi.SRPolicyAdd(k.BSID, binapi.SegmentList{Segments: p.SegmentLists[0].Segments, Weight: p.SegmentLists[0].Weight})
		if err != nil {
			return err
		}
		policies = append(policies, call)
	}
	for k, v := range s.Steerings {
		steerings = append(steerings, steer(k.Prefix, v.BSID, del))
	}
	calls := slices.Concat(policies, steerings)
	if del {
		calls = slices.Concat(steerings, policies)
	}
	if err := conn.Do(ctx, calls...); err != nil {
		return err
	}
	for _, c := range calls {
		if c.Err != nil {
			return c.Err
		}
	}
	return nil
}

func steer(p netip.Prefix, bsid netip.Addr, del bool) *binapi.Call {
	s := binapi.Steering{Prefix: p, BSID: bsid}
	if del {
		return binapi.SRSteeringDel(s)
	}
	return binapi.SRSteeringAdd(s)
}
