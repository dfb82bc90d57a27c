package plugin

import (
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/sidewinder-net/sidewinder/cni/api"
	"github.com/sidewinder-net/sidewinder/cni/client"
)

// The plugin's own error codes; those below 100 are the specification's.
const (
	// CodeAgentRefused: the agent will not wire the pod as asked.
	CodeAgentRefused uint = 100
	// CodeIPAM: the IPAM plugin failed.
	CodeIPAM uint = 101
	// CodeInterface: the pod's interface could not be made or removed.
	CodeInterface uint = 102
	// CodeCheck: what is there is not what ADD made.
	CodeCheck uint = 103
)

// fail makes a CNI error. The text always has what, which part of it, why, and
// what to do.
func fail(code uint, object, field, reason, remedy string) *types.Error {
	e := api.Error{Object: object, Field: field, Reason: reason, Remedy: remedy}
	return types.NewError(code, e.Error(), "")
}

func interfaceError(name, doing string, err error) *types.Error {
	return fail(CodeInterface, "interface "+name, "", fmt.Sprintf("%s: %v", doing, err), "")
}

// agentError gives an error of the client the code that tells the runtime
// whether trying again can help.
func agentError(err error) *types.Error {
	var unreachable *client.UnreachableError
	var answer *api.Error
	switch {
	case errors.As(err, &unreachable):
		return types.NewError(types.ErrTryAgainLater, err.Error(), "")
	case errors.As(err, &answer) && answer.TryAgain:
		return types.NewError(types.ErrTryAgainLater, err.Error(), "")
	}
	return types.NewError(CodeAgentRefused, err.Error(), "")
}

// ipamError names the IPAM plugin, and keeps its own code where that has a
// meaning for the runtime.
func ipamError(plugin, command string, err error) *types.Error {
	code, reason := CodeIPAM, err.Error()
	var e *types.Error
	if errors.As(err, &e) {
		switch e.Code {
		case types.ErrTryAgainLater, types.ErrInvalidNetworkConfig:
			code = e.Code
		}
		reason = fmt.Sprintf("%v (code %d)", e, e.Code)
	}
	return fail(code, "IPAM plugin "+plugin, "", command+" failed: "+reason, "")
}

// joined puts what else went wrong behind the first error.
func joined(first *types.Error, later error) *types.Error {
	if later == nil {
		return first
	}
	return types.NewError(first.Code, first.Msg, "also: "+later.Error())
}
