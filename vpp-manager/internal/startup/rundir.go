package startup

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// ErrRunDir: the run directory's path cannot be used.
var ErrRunDir = errors.New("run directory unusable")

// pathCharacters are those of a path, beside ASCII letters and digits, that
// VPP's configuration takes as they are. It has no way to quote the others:
// white space ends a word, braces group, # begins a comment.
const pathCharacters = "/._-+:@=~,"

// CheckRunDir reports why VPP could not work in the folder of this path: it is
// not absolute, is too long for a Unix socket (sun_path, unix(7)), or has
// characters that the configuration cannot take. The error is ErrRunDir.
func CheckRunDir(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("%w: %q is not an absolute path", ErrRunDir, dir)
	}
	if i := strings.IndexFunc(dir, func(r rune) bool { return !plain(r) }); i >= 0 {
		r := []rune(dir[i:])[0]
		return fmt.Errorf("%w: %q has the character %q, which VPP's configuration cannot quote; choose a path of ASCII letters, digits and %s",
			ErrRunDir, dir, r, pathCharacters)
	}
	// sun_path has 108 bytes, the last one for NUL.
	if n := len(Config{RunDir: dir}.StatsSocket()); n > 107 {
		return fmt.Errorf("%w: %q is too long: the path of a socket in it has %d bytes, at most 107 are possible", ErrRunDir, dir, n)
	}
	return nil
}

func plain(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return true
	}
	return strings.ContainsRune(pathCharacters, r)
}
