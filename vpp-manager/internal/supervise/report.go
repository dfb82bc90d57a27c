package supervise

import (
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/api/node"
)

// Report says what a planned restart came to. Times are in milliseconds.
type Report struct {
	// Links that were turned to the kernel first, and whether VPP had received
	// its last packet before it was stopped.
	Links int  `json:"links"`
	Quiet bool `json:"quiet"`
	// DrainError says why packets may have been lost.
	DrainError string `json:"drainError,omitempty"`
	// Of the VPP before; OldPID is 0 when there was none.
	OldPID     int    `json:"oldPID,omitempty"`
	OldVersion string `json:"oldVersion,omitempty"`
	// Of the new one.
	PID     int    `json:"pid"`
	Version string `json:"version"`

	DrainMillis int64 `json:"drainMillis"`
	StopMillis  int64 `json:"stopMillis"`
	StartMillis int64 `json:"startMillis"`
}

// journal keeps the manager's file as it should be.
type journal struct {
	dir string
	log logrus.FieldLogger

	mu sync.Mutex
	m  node.Manager
}

// set changes the state and more, and writes the file.
func (j *journal) set(state node.State, change func(*node.Manager)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.m.State != state {
		j.m.State, j.m.Since = state, time.Now()
	}
	if state != node.StateWaiting {
		j.m.NextStart = time.Time{}
	}
	if change != nil {
		change(&j.m)
	}
	j.m.Version = node.Version
	if err := j.m.Write(j.dir); err != nil {
		j.log.WithError(err).Error("The agent is not told of VPP's state")
	}
}

func (j *journal) get() node.Manager {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.m
}
