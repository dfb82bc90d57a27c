package podspec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

// member is one key of a JSON object with its value as it was written.
type member struct {
	key   string
	value string
}

// object reads a JSON object as it is written: a key given twice is an error and
// not, as encoding/json has it, the last one's.
func object(text string) ([]member, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("is longer than %d bytes", maxText)
	}
	d := json.NewDecoder(strings.NewReader(text))
	first, err := d.Token()
	if err != nil {
		return nil, syntax(err)
	}
	if first != json.Delim('{') {
		return nil, errors.New("is not a JSON object")
	}
	var out []member
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, syntax(err)
		}
		key, _ := t.(string)
		if seen[key] {
			return nil, fmt.Errorf("%.64q is given twice", key)
		}
		seen[key] = true
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, syntax(err)
		}
		out = append(out, member{key, string(raw)})
	}
	if _, err := d.Token(); err != nil {
		return nil, syntax(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has something after the JSON object")
	}
	return out, nil
}

func syntax(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("is not JSON: it ends too early")
	}
	return fmt.Errorf("is not JSON: %w", err)
}

// one reads one interface's object; false when any of it cannot be used, and
// then all of it is left at its default.
func (p *parser) one(annotation, text string, path ...string) (Interface, bool) {
	members, err := object(text)
	if err != nil {
		p.bad(field(annotation, path...), `write a JSON object, such as {"rx": 1, "rxMode": "interrupt"}`, "%v", err)
		return Interface{}, false
	}
	var out Interface
	good := true
	for _, m := range members {
		remedy, err := out.set(m)
		if err != nil {
			good = false
			p.bad(field(annotation, append(append([]string{}, path...), fmt.Sprintf("%.64s", m.key))...), remedy, "%v", err)
		}
	}
	if !good {
		return Interface{}, false
	}
	return out, true
}

// set takes one field in.
func (i *Interface) set(m member) (remedy string, err error) {
	switch m.key {
	case "rx":
		i.Rx, err = queues(m.value)
	case "tx":
		i.Tx, err = queues(m.value)
	case "rxqsz":
		i.RxRing, err = ring(m.value)
	case "txqsz":
		i.TxRing, err = ring(m.value)
	case "isl3":
		switch m.value {
		case "true":
			i.L3 = true
		case "false", "null":
		default:
			return "write true or false", fmt.Errorf("%.64s is neither true nor false", m.value)
		}
	case "rxMode":
		i.RxMode, err = rxMode(m.value)
		remedy = "write interrupt, adaptive or polling"
	default:
		return "use rx, tx, rxqsz, txqsz, isl3 or rxMode", errors.New("is not known")
	}
	return remedy, err
}

// queues reads a number of queues; 0 is the default.
func queues(s string) (uint8, error) {
	n, err := strconv.ParseUint(s, 10, 8)
	if s == "null" {
		return 0, nil
	}
	if err != nil || n > MaxQueues {
		return 0, fmt.Errorf("%.64s is not a whole number from 0 to %d", s, MaxQueues)
	}
	return uint8(n), nil
}

// ring reads a number of descriptors; 0 is the default.
func ring(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if s == "null" || err == nil && n == 0 {
		return 0, nil
	}
	if err != nil || n < MinRing || n > MaxRing || n&(n-1) != 0 {
		return 0, fmt.Errorf("%.64s is not a power of two from %d to %d", s, MinRing, MaxRing)
	}
	return uint16(n), nil
}

func rxMode(s string) (dataplane.RxMode, error) {
	var mode string
	if err := json.Unmarshal([]byte(s), &mode); err != nil {
		return "", fmt.Errorf("%.64s is not a text", s)
	}
	switch m := dataplane.RxMode(mode); m {
	case dataplane.RxInterrupt, dataplane.RxAdaptive, dataplane.RxPolling:
		return m, nil
	case "", "default":
		return "", nil
	}
	return "", fmt.Errorf("%.64q is not a mode", mode)
}
