package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sidewinder-net/sidewinder/test/lab"
)

// forgetTimeout is how long the others may take to forget a node.
const forgetTimeout = 20 * time.Second

// removeNode takes the last node away and looks for what still leads to it.
func (d *demo) removeNode(ctx context.Context) error {
	nodes := d.lab.Nodes()
	last := nodes[len(nodes)-1]
	err := d.screen.step("node removal", "a node removed leaves nothing on the others", func(note noter) error {
		s, err := last.Status(ctx)
		if err != nil {
			return err
		}
		locator, err := netip.ParsePrefix(s.Locator)
		if err != nil {
			return fmt.Errorf("locator of %s: %w", last.Name, err)
		}
		gone := lab.Departed{Locator: locator, PodCIDRs: last.PodCIDRs()}
		d.report.NodeRemoval.Node = last.Name
		for _, n := range nodes[:len(nodes)-1] {
			// A search that finds nothing while the node is there proves nothing later.
			if found, err := n.Residue(ctx, gone); err != nil {
				return err
			} else if len(found) == 0 {
				return fmt.Errorf("%s holds nothing towards %s although it is there: the search does not work", n.Name, last.Name)
			}
		}
		start := time.Now()
		if err := d.lab.RemoveNode(ctx, last.ID); err != nil {
			return err
		}
		cctx, cancel := context.WithTimeout(ctx, forgetTimeout)
		defer cancel()
		if err := d.lab.WaitConverged(cctx); err != nil {
			return err
		}
		left, err := d.leftOf(cctx, gone)
		if err != nil {
			return err
		}
		d.report.NodeRemoval.Left = append(d.report.NodeRemoval.Left, left...)
		d.report.NodeRemoval.Millis = millis(time.Since(start))
		note("%s, locator %s: no policy, steering or route after %s", last.Name, locator, seconds(time.Since(start)))
		if len(left) > 0 {
			note("%s: %d left", last.Name, len(left))
			return errors.New(strings.Join(left, "\n"))
		}
		return nil
	})
	if err != nil || !d.flags.keep {
		return err
	}
	return d.screen.step("node rejoins", "the node joins again", func(noter) error {
		n, err := d.lab.AddNode(ctx, last.ID)
		if err != nil {
			return err
		}
		for range d.flags.pods {
			if _, err := n.AddPod(ctx); err != nil {
				return err
			}
		}
		return d.lab.WaitConverged(ctx)
	})
}

func (d *demo) leftOf(ctx context.Context, gone lab.Departed) ([]string, error) {
	var left []string
	for _, n := range d.lab.Nodes() {
		found, err := n.Residue(ctx, gone)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			left = append(left, n.Name+": "+f)
		}
	}
	return left, nil
}
