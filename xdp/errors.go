package xdp

import "errors"

var (
	// ErrNoShim: no XDP program is on the link.
	ErrNoShim = errors.New("no XDP program is attached")
	// ErrForeignProgram: the link has an XDP program of somebody else's. VPP
	// would replace it: move that program, or name another uplink.
	ErrForeignProgram = errors.New("an XDP program of somebody else's is attached")
	// ErrUnsupported: the kernel lacks something that the shim needs, or this
	// process may not use it. The error around it says what.
	ErrUnsupported = errors.New("the XDP shim cannot run here")
)
