package xdp

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

//go:generate go tool bpf2go -tags linux -target bpfel,bpfeb -output-stem zz_generated_shim shim shim.c -- -g -Wall -Wextra -Werror -mcpu=v3
//go:generate sh -c "clang --version | head -1 > clang-version"

// Object is the compiled shim, an ELF file in this machine's byte order, as
// libbpf and VPP's af_xdp plugin load it.
func Object() []byte { return bytes.Clone(_ShimBytes) }

// WriteObject puts the compiled shim into a file, whole or not at all. A file
// that holds it already is left alone.
func WriteObject(path string) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, _ShimBytes) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("XDP shim %s: %w", path, err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(_ShimBytes)
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("XDP shim %s: %w", path, err)
	}
	return nil
}
