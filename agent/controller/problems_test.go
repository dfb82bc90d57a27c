package controller

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/config"
)

// What a driver takes away is told, where it is used.
func TestServicesProblems(t *testing.T) {
	for name, c := range map[string]struct {
		dataplane, uplink, pod string
		fields                 []string
	}{
		"default":            {config.DataplaneVPP, config.DriverAFXDP, config.DriverAFXDP, nil},
		"copies":             {config.DataplaneVPP, config.DriverAFPacket, config.DriverAFPacket, []string{"vpp.uplinkDriver", "vpp.podDriver"}},
		"a NIC of VPP's":     {config.DataplaneVPP, config.DriverDPDK, config.DriverAFXDP, []string{"vpp.uplinkDriver"}},
		"the kernel carries": {config.DataplaneLinux, config.DriverAFPacket, config.DriverAFPacket, nil},
	} {
		cfg := config.Default()
		cfg.Dataplane, cfg.VPP.UplinkDriver, cfg.VPP.PodDriver = c.dataplane, c.uplink, c.pod
		var fields []string
		for _, p := range servicesProblems(cfg) {
			fields = append(fields, p.Field)
			require.NotEmpty(t, p.Remedy)
		}
		require.Equal(t, c.fields, fields, name)
	}
}
