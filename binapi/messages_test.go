package binapi

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.fd.io/govpp/api"
)

// lacks is a VPP without some messages.
type lacks map[string]bool

func (l lacks) GetMessageID(m api.Message) (uint16, error) {
	if l[m.GetMessageName()] {
		return 0, errors.New("unknown message")
	}
	return 1, nil
}

func TestMissingMessagesNamesMessageAndRelease(t *testing.T) {
	missing := missingMessages(lacks{"sr_policy_add_v2": true, "af_xdp_create_v3": true}, []Group{GroupAFXDP})
	err := &IncompatibleError{Version: "22.02-release", Missing: missing}
	require.ErrorContains(t, err, "VPP 22.02-release lacks 2 API messages")
	require.ErrorContains(t, err, "sr_policy_add_v2_f6297f36 (in VPP 23.06 and later)")
	require.ErrorContains(t, err, "af_xdp_create_v3_cf4b1827 (in VPP 23.10 and later, with plugin af_xdp_plugin.so loaded)")
}

func TestMissingMessagesOfPluginsThatAreNotRequired(t *testing.T) {
	require.Empty(t, missingMessages(lacks{"af_xdp_create_v3": true}, nil))
	require.Empty(t, missingMessages(lacks{}, []Group{GroupAFXDP, GroupAFPacket}))
}

func TestMessagesAreListedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range messages() {
		require.False(t, seen[m.msg.GetMessageName()], m.msg.GetMessageName())
		seen[m.msg.GetMessageName()] = true
	}
}

func TestRetvalErrorSpeaks(t *testing.T) {
	require.NoError(t, retvalError("m", 0, nil))
	err := retvalError("sw_interface_set_flags", int32(api.INVALID_SW_IF_INDEX), nil)
	require.EqualError(t, err, "sw_interface_set_flags: Invalid sw_if_index (-2)")
	err = retvalError("sr_policy_add_v2", RetvalPolicyExists, policyWords())
	require.ErrorContains(t, err, "in use by a policy or a route")
	require.EqualValues(t, RetvalPolicyExists, Retval(err))
	require.Zero(t, Retval(errors.New("another")))
}

func TestSegmentListLimits(t *testing.T) {
	_, err := SRPolicyAdd(goAddr6([16]byte{1}), SegmentList{})
	require.ErrorContains(t, err, "1 to 16 segments")
	_, err = SRSetEncapHopLimit(0)
	require.Error(t, err)
}
