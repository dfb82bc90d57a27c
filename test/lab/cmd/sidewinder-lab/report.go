package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sidewinder-net/sidewinder/test/lab/traffic"
)

// report is the demo's outcome for programs.
type report struct {
	OK bool `json:"ok"`
	// Failures are the reasons when not OK.
	Failures []string `json:"failures"`
	// Dataplane is "linux", "vpp" or "mixed".
	Dataplane string `json:"dataplane"`
	// VPPVersion is empty where no node runs VPP.
	VPPVersion string `json:"vppVersion"`
	Nodes      int    `json:"nodes"`
	// Pods on each node.
	Pods         int          `json:"pods"`
	Paths        int          `json:"paths"`
	PodMTU       int          `json:"podMTU"`
	Reachability reachability `json:"reachability"`
	// Surroundings are the ways between pods, hosts, services and the outside.
	Surroundings reachability `json:"surroundings"`
	FlowLabels   flowLabels   `json:"flowLabels"`
	// FlowRuns are all measurements of the spread: one for each kind of sender.
	FlowRuns     []flowLabels `json:"flowRuns"`
	Throughput   throughput   `json:"throughput"`
	AgentRestart agentRestart `json:"agentRestart"`
	// Scale is what many pods take; only of `scale`.
	Scale *scale `json:"scale,omitempty"`
	// Failover is what it cost that VPP failed, by kind; empty without VPP.
	Failover    []failover    `json:"failover"`
	NodeRemoval nodeRemoval   `json:"nodeRemoval"`
	Left        []string      `json:"leftBehind"`
	Durations   map[string]ms `json:"durations"`
}

// ms is a duration in milliseconds.
type ms float64

type reachability struct {
	Tried int `json:"tried"`
	OK    int `json:"ok"`
}

type flowLabels struct {
	// Sender is the dataplane that made the labels.
	Sender string `json:"sender"`
	traffic.FlowResult
}

type throughput struct {
	// TCPBitsPerSecond is one IPv4 stream between pods on two nodes.
	TCPBitsPerSecond  float64 `json:"tcpBitsPerSecond"`
	TCP6BitsPerSecond float64 `json:"tcp6BitsPerSecond"`
}

type agentRestart struct {
	Restarts     int     `json:"restarts"`
	Sent         int     `json:"sent"`
	Lost         int     `json:"lost"`
	MaxGapMillis float64 `json:"maxGapMillis"`
}

type nodeRemoval struct {
	Node string `json:"node"`
	// Left is what was found on other nodes that still led to it.
	Left []string `json:"left"`
	// Millis until every other node had forgotten it.
	Millis ms `json:"millis"`
}

func millis(d time.Duration) ms { return ms(float64(d.Microseconds()) / 1000) }

// writable says why no report can be written to a path.
func writable(path string) error {
	dir := filepath.Dir(path)
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return fmt.Errorf("report: %s is not a directory; make it first", dir)
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return fmt.Errorf("report: %s is a directory; name a file in it", path)
	}
	tmp, err := os.CreateTemp(dir, ".report-*")
	if err != nil {
		return fmt.Errorf("report: no file can be made in %s: %w", dir, err)
	}
	return errors.Join(tmp.Close(), os.Remove(tmp.Name()))
}

// write stores the report, whole or not at all.
func (r report) write(path string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".report-*")
	if err != nil {
		return fmt.Errorf("report %s: %w", path, err)
	}
	_, err = tmp.Write(append(raw, '\n'))
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(tmp.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("report %s: %w", path, err)
	}
	return nil
}
