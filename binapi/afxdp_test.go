package binapi_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/binapi"
)

func TestBuffersPerAFXDPQueue(t *testing.T) {
	require.Equal(t, 512+128, binapi.BuffersPerAFXDPQueue(0, 0))
	require.Equal(t, 256+64, binapi.BuffersPerAFXDPQueue(binapi.AFXDPPodRing, binapi.AFXDPPodRing))
	require.Equal(t, 4096+128, binapi.BuffersPerAFXDPQueue(4096, 512))
}

func TestAFXDPProgramPathThatDoesNotFit(t *testing.T) {
	var i binapi.Index
	_, err := binapi.AFXDPCreate(binapi.AFXDP{Link: "eth0", Program: strings.Repeat("x", 256)}, &i)
	require.ErrorContains(t, err, "256 bytes")
	_, err = binapi.AFXDPCreate(binapi.AFXDP{Link: "eth0", Program: strings.Repeat("x", 255)}, &i)
	require.NoError(t, err)
}
