package vpp

import (
	"context"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/dataplane"
)

func TestTapIsRefusedInWords(t *testing.T) {
	for device, reason := range map[string]string{
		filepath.Join(t.TempDir(), "vhost-net"): "this kernel does not have (module vhost_net); use af_xdp",
		"/dev/null":                             "the kernel takes over when VPP is down; use af_xdp",
		"/dev/null/x":                           "not a directory; use af_xdp",
	} {
		err := refuseTap(device)
		require.ErrorIs(t, err, dataplane.ErrUnsupported)
		require.ErrorContains(t, err, reason)
	}
	_, err := New(context.Background(), Options{PodDriver: DriverTap, Socket: "/none", Locator: netip.MustParsePrefix("fcbb:bb00:1::/48"), Log: testLog(t)})
	require.ErrorIs(t, err, dataplane.ErrUnsupported)
	require.ErrorContains(t, err, `PodDriver: "tap"`)
}
