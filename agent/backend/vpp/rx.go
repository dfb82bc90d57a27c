package vpp

import (
	"fmt"
	"math/bits"
	"strconv"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/binapi"
)

// minRing is VPP's smallest ring, one of its frames (VLIB_FRAME_SIZE).
const minRing = 256

// checkRx checks what is asked for, in terms that hold for every driver.
func checkRx(r dataplane.Rx) error {
	if _, ok := rxModes()[r.Mode]; !ok {
		return fmt.Errorf("%w: rx mode %q is none of %q, %q, %q", dataplane.ErrUnsupported, r.Mode,
			dataplane.RxInterrupt, dataplane.RxAdaptive, dataplane.RxPolling)
	}
	for name, n := range map[string]uint16{"ring": r.Ring, "tx ring": r.TxRing} {
		if n != 0 && (n < minRing || bits.OnesCount16(n) != 1) {
			return fmt.Errorf("%w: rx %s of %d descriptors is not a power of two from %d to 32768", dataplane.ErrUnsupported, name, n, minRing)
		}
	}
	return nil
}

// rxModes by their names. Nothing said is interrupt: a VPP that sleeps.
func rxModes() map[dataplane.RxMode]binapi.RxMode {
	return map[dataplane.RxMode]binapi.RxMode{
		"":                    binapi.RxInterrupt,
		dataplane.RxInterrupt: binapi.RxInterrupt,
		dataplane.RxAdaptive:  binapi.RxAdaptive,
		dataplane.RxPolling:   binapi.RxPolling,
	}
}

// rxLetters stand for the modes in a tag.
func rxLetters() map[dataplane.RxMode]string {
	return map[dataplane.RxMode]string{"": "-", dataplane.RxInterrupt: "i", dataplane.RxAdaptive: "a", dataplane.RxPolling: "p"}
}

// formatRx writes what was asked for into five letters: the mode, the queues in
// hexadecimal, and the logarithms of the rings. VPP tells the mode alone, and
// not whether it was asked for. The zero Rx is empty.
func formatRx(r dataplane.Rx) string {
	if r == (dataplane.Rx{}) {
		return ""
	}
	return fmt.Sprintf("%s%02x%x%x", rxLetters()[r.Mode], r.Queues, log2(r.Ring), log2(r.TxRing))
}

// log2 of a ring; 0 for none.
func log2(n uint16) int { return max(bits.Len16(n)-1, 0) }

// parseRx reads what formatRx wrote.
func parseRx(s string) (r dataplane.Rx, ok bool) {
	if s == "" {
		return r, true
	}
	if len(s) != 5 {
		return r, false
	}
	for mode, letter := range rxLetters() {
		if s[:1] == letter {
			r.Mode, ok = mode, true
		}
	}
	queues, err1 := strconv.ParseUint(s[1:3], 16, 8)
	ring, err2 := strconv.ParseUint(s[3:4], 16, 4)
	tx, err3 := strconv.ParseUint(s[4:5], 16, 4)
	if !ok || err1 != nil || err2 != nil || err3 != nil {
		return dataplane.Rx{}, false
	}
	r.Queues = uint8(queues)
	if ring != 0 {
		r.Ring = 1 << ring
	}
	if tx != 0 {
		r.TxRing = 1 << tx
	}
	return r, true
}

// receivesAs: every queue is in the mode that was asked for. Modes that nobody
// has read count as right, and so does any where that one was refused.
func (h held) receivesAs() bool {
	if h.tag.has(flagRxRefused) {
		return true
	}
	want := rxModes()[h.tag.rx.Mode]
	for _, m := range h.modes {
		if m != want {
			return false
		}
	}
	return true
}

// withoutRxMode goes on where VPP's driver refused a mode: with interrupts in
// place of the adaptive mode, else with whatever VPP has. Packets flow all the
// same; polling costs a core.
func (a *applier) withoutRxMode(h held, p plan, refused error) (fatal, err error) {
	a.log.WithError(refused).WithField("interface", p.name).Warnf("VPP refused rx mode %q: it receives as it can", rxModes()[p.want.Rx.Mode])
	calls := []*binapi.Call{binapi.InterfaceSetTag(h.Index, p.tag.with(flagRxRefused, true).String())}
	if p.want.Rx.Mode == dataplane.RxAdaptive {
		calls = append(calls, binapi.InterfaceSetRxMode(h.Index, binapi.RxInterrupt))
	}
	if fatal := a.c.Do(a.ctx, calls...); fatal != nil {
		return fatal, nil
	}
	return nil, calls[0].Err
}

// sameQueues: what can only be chosen when an interface is made is the same.
func sameQueues(a, b dataplane.Rx) bool {
	a.Mode, b.Mode = "", ""
	return a == b
}
