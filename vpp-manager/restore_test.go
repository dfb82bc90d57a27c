package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUplinkTexts(t *testing.T) {
	texts := listUplinks([]string{"eth0,eth1", "", "eth2", "eth3=dpdk:net_af_packet,qpairs=2,framecnt=512", "eth4=dpdk"})
	shared, dedicated, err := splitUplinks(texts)
	require.NoError(t, err)
	require.Equal(t, []string{"eth0", "eth1", "eth2"}, shared)
	require.Len(t, dedicated, 2)
	require.Equal(t, "net_af_packet,qpairs=2,framecnt=512", dedicated[0].VDev, "one virtual device, not three uplinks")
	require.Equal(t, "eth4", dedicated[1].Link)
}
