package supervise

import (
	"bytes"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
)

// mostLog is the size in bytes above which VPP's log is put aside before a
// start; one old log is kept.
const mostLog = 16 << 20

// rotate puts a log aside that is larger than most, and gives the size of what
// is left: VPP appends, so what it says from now on begins there.
func rotate(path string, most int64) (int64, error) {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if st.Mode().IsRegular() && st.Size() <= most {
		return st.Size(), nil
	}
	// What is no file is put aside as well: VPP would write where it leads.
	return 0, os.Rename(path, path+".1")
}

// lastLines reads the end of a file, at most n lines that are not empty, and
// nothing before the offset from.
func lastLines(path string, from int64, n int) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	const most = 8192
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	if st.Size() < from { // somebody has emptied it
		from = 0
	}
	var t tail
	_, _ = io.Copy(&t, io.NewSectionReader(f, max(from, st.Size()-most), most))
	return t.last(n)
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const most = 16384
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > most {
		t.buf = append([]byte(nil), t.buf[len(t.buf)-most:]...)
	}
	return len(p), nil
}

// colours are those that VPP gives its words on a terminal (ECMA-48, SGR).
var colours = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// last gives up to n lines that are not empty.
func (t *tail) last(n int) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for _, l := range bytes.Split(t.buf, []byte("\n")) {
		if s := strings.TrimSpace(colours.ReplaceAllString(string(l), "")); s != "" {
			out = append(out, s)
		}
	}
	return out[max(0, len(out)-n):]
}
