package traffic

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEchoMessages(t *testing.T) {
	for _, v4 := range []bool{true, false} {
		b := echoRequest(v4, 77, 1<<40+5, 9)
		_, ok := parseReply(v4, b, 77)
		require.False(t, ok, "a request is no reply")
		if v4 {
			require.Zero(t, internetChecksum(b), "the sum of a right message")
			b[0] = icmpReply4
		} else {
			b[0] = icmpReply6
		}
		number, ok := parseReply(v4, b, 77)
		require.True(t, ok)
		require.EqualValues(t, 1<<40+5, number)
		_, ok = parseReply(v4, b, 78)
		require.False(t, ok, "another ping's")
		for n := range b {
			_, ok := parseReply(v4, b[:n], 77)
			require.False(t, ok, "cut to %d bytes", n)
		}
	}
}
