package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// screen shows progress: one line for each step, live on a terminal, plain
// elsewhere.
type screen struct {
	out  io.Writer
	live bool

	mu        sync.Mutex
	durations map[string]time.Duration
}

func newScreen(f *os.File) *screen {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &screen{out: f, live: err == nil && os.Getenv("TERM") != "dumb", durations: map[string]time.Duration{}}
}

func (s *screen) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format, args...)
}

// Colours of the marks, on a terminal.
const (
	green = "32"
	red   = "31"
	grey  = "90"
	bold  = "1"
)

func (s *screen) paint(colour, text string) string {
	if !s.live {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// step runs one part of the demo under a name. do may tell how far it is and
// what it found: both end up behind the name.
func (s *screen) step(key, name string, do func(note func(format string, args ...any)) error) error {
	start := time.Now()
	var noteMu sync.Mutex
	text := ""
	note := func(format string, args ...any) {
		noteMu.Lock()
		defer noteMu.Unlock()
		text = fmt.Sprintf(format, args...)
	}
	current := func() string {
		noteMu.Lock()
		defer noteMu.Unlock()
		if text == "" {
			return name
		}
		return name + ": " + text
	}
	stop := s.spin(current, start)
	err := do(note)
	stop()
	took := time.Since(start)
	s.mu.Lock()
	s.durations[key] = took
	s.mu.Unlock()
	mark := s.paint(green, "✓")
	if err != nil {
		mark = s.paint(red, "✗")
	}
	s.printf("%s %s  %s\n", mark, current(), s.paint(grey, seconds(took)))
	return err
}

// spin redraws the running step's line until the returned function is called.
func (s *screen) spin(current func() string, start time.Time) (stop func()) {
	if !s.live {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
		for i := 0; ; i++ {
			s.printf("\r\x1b[K%c %s  %s", frames[i%len(frames)], current(), s.paint(grey, seconds(time.Since(start))))
			select {
			case <-done:
				s.printf("\r\x1b[K")
				return
			case <-tick.C:
			}
		}
	}()
	return func() { close(done); <-ended }
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// barWidth is the length of a full bar in characters.
const barWidth = 40

// bar draws a share between 0 and 1.
func bar(share float64) string {
	eighths := int(share*barWidth*8 + 0.5)
	full, part := eighths/8, eighths%8
	b := strings.Repeat("█", full)
	if part > 0 {
		b += string([]rune("▏▎▍▌▋▊▉")[part-1])
	}
	return b
}
