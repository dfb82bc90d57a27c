package binapi

import (
	"errors"
	"fmt"
	"strings"

	"go.fd.io/govpp/api"
)

// Sentinel errors, matched with errors.Is.
var (
	// ErrDisconnected: the connection to VPP is gone, or VPP does not answer.
	// The Conn is of no further use; whether the calls in flight were carried
	// out is not known.
	ErrDisconnected = errors.New("VPP is not connected")
	// ErrNotConnectable: nothing answers on the API socket.
	ErrNotConnectable = errors.New("VPP's API cannot be reached")
)

// RetvalError is VPP's refusal of one call.
type RetvalError struct {
	// Message is the API message's name.
	Message string
	// Retval is VPP's return value, not 0.
	Retval int32
	// Words say what it means.
	Words string
}

func (e *RetvalError) Error() string {
	return fmt.Sprintf("%s: %s (%d)", e.Message, e.Words, e.Retval)
}

// Retval is the return value in err, if VPP refused the call; 0 otherwise.
func Retval(err error) int32 {
	var re *RetvalError
	if errors.As(err, &re) {
		return re.Retval
	}
	return 0
}

// retvalError makes the error for a reply's return value. Some messages have
// return values of their own (words); the others use VPP's common list.
func retvalError(message string, retval int32, words map[int32]string) error {
	if retval == 0 {
		return nil
	}
	w, ok := words[retval]
	if !ok {
		w = strings.TrimPrefix(api.VPPApiError(retval).Error(), "VPPApiError: ")
		w = strings.TrimSuffix(w, fmt.Sprintf(" (%d)", retval))
	}
	return &RetvalError{Message: message, Retval: retval, Words: w}
}

// IncompatibleError lists the messages that this program needs and the VPP at
// hand does not have in the same form.
type IncompatibleError struct {
	// Version is VPP's own version text; empty when it could not be asked.
	Version string
	Missing []MissingMessage
}

// MissingMessage is one message that VPP lacks.
type MissingMessage struct {
	Name, CRC string
	// Versions says which releases of VPP have the message in this form.
	Versions string
	// Plugin that brings the message; empty when VPP itself does.
	Plugin string
}

func (m MissingMessage) String() string {
	s := m.Name + "_" + m.CRC + " (in VPP " + m.Versions
	if m.Plugin != "" {
		s += ", with plugin " + m.Plugin + " loaded"
	}
	return s + ")"
}

func (e *IncompatibleError) Error() string {
	v := e.Version
	if v == "" {
		v = "of unknown version"
	}
	parts := make([]string, len(e.Missing))
	for i, m := range e.Missing {
		parts[i] = m.String()
	}
	return fmt.Sprintf("VPP %s lacks %d API messages, or has them in another form: %s", v, len(parts), strings.Join(parts, "; "))
}
