package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
)

func TestPlainStep(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, durations: map[string]time.Duration{}}
	require.NoError(t, s.step("k", "walk", func(note func(string, ...any)) error { note("%d steps", 3); return nil }))
	bad := errors.New("stumbled")
	require.ErrorIs(t, s.step("l", "run", func(func(string, ...any)) error { return bad }), bad)
	require.Equal(t, "✓ walk: 3 steps  0.0 s\n✗ run  0.0 s\n", out.String())
	require.Contains(t, s.durations, "k")
}

func TestBar(t *testing.T) {
	require.Equal(t, "", bar(0))
	require.Equal(t, strings.Repeat("█", barWidth/2), bar(0.5))
	require.Equal(t, strings.Repeat("█", barWidth), bar(1))
	require.Equal(t, "▌", bar(0.5/barWidth))
}

func TestPicture(t *testing.T) {
	r := traffic.FlowResult{Packets: 4, Paths: map[string]int{"spine10": 1, "spine2": 3}, FlowsByPath: map[string]int{"spine10": 1, "spine2": 2}}
	lines := strings.Split(picture(r), "\n")
	require.Contains(t, lines[0], "spine2 ")
	require.Contains(t, lines[0], "75.0%  3 packets, 2 flows")
	require.Contains(t, lines[1], "spine10 ")
}

func TestMaxShare(t *testing.T) {
	require.InDelta(t, 0.56, maxShare(2, 1000), 0.0005)
	require.Equal(t, 1.0, maxShare(1, 1000))
	require.InDelta(t, 0.0625+0.029, maxShare(16, 1000), 0.001)
}

func TestCheckSpread(t *testing.T) {
	o := traffic.FlowOptions{Flows: 1000, Packets: 4, Taps: make([]traffic.Tap, 2)}
	good := traffic.FlowResult{Flows: 1000, Distinct: 999, Packets: 4000, Received: 4000, MaxPathShare: 0.52}
	require.NoError(t, checkSpread(good, o))
	for want, spoil := range map[string]func(*traffic.FlowResult){
		"3959 received":             func(r *traffic.FlowResult) { r.Received -= 41 },
		"3999 seen":                 func(r *traffic.FlowResult) { r.Packets-- },
		"4001 seen":                 func(r *traffic.FlowResult) { r.Packets++ },
		"flow label 0":              func(r *traffic.FlowResult) { r.Unlabelled = 1 },
		"changed their flow label":  func(r *traffic.FlowResult) { r.Changing = 1 },
		"split over paths":          func(r *traffic.FlowResult) { r.Split = 1 },
		"only 2 distinct":           func(r *traffic.FlowResult) { r.Distinct = 2 },
		"busiest path carried 57.0": func(r *traffic.FlowResult) { r.MaxPathShare = 0.57 },
	} {
		r := good
		spoil(&r)
		require.ErrorContains(t, checkSpread(r, o), want)
	}
}
