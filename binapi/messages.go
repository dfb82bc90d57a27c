package binapi

import (
	"slices"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/abf"
	"go.fd.io/govpp/binapi/acl"
	"go.fd.io/govpp/binapi/af_packet"
	"go.fd.io/govpp/binapi/af_xdp"
	"go.fd.io/govpp/binapi/classify"
	"go.fd.io/govpp/binapi/fib"
	"go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/ip6_nd"
	"go.fd.io/govpp/binapi/ip_neighbor"
	"go.fd.io/govpp/binapi/l2"
	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/binapi/memif"
	"go.fd.io/govpp/binapi/sr"
	"go.fd.io/govpp/binapi/vlib"
	"go.fd.io/govpp/binapi/vpe"
)

// Group is a set of messages that stand or fall together.
type Group string

// The groups besides the core messages, which are always needed.
const (
	GroupAFPacket Group = "af_packet"
	GroupAFXDP    Group = "af_xdp"
	// GroupMemif, GroupACL and GroupABF are what a memif with its ports needs.
	GroupMemif Group = "memif"
	GroupACL   Group = "acl"
	GroupABF   Group = "abf"
	// GroupDPDK is what a NIC of VPP's own needs, beside GroupAFPacket for the
	// host's veth.
	GroupDPDK Group = "dpdk"
)

// plugins that bring the messages of a group.
var plugins = map[Group]string{GroupAFPacket: "af_packet_plugin.so", GroupAFXDP: "af_xdp_plugin.so",
	GroupMemif: "memif_plugin.so", GroupACL: "acl_plugin.so", GroupABF: "abf_plugin.so",
}

// message is a row of the table of messages.
type message struct {
	group Group // "" for core
	// since is the first release whose message has the very same form (CRC).
	since string
	msg   api.Message
}

// Releases, in the form of message.since. 22.02 is the oldest that was looked
// at, 26.06 the newest; no message changed its form and changed back.
const (
	v2202 = "22.02"
	v2206 = "22.06"
	v2306 = "23.06"
	v2310 = "23.10"
	// v2510: not compared with the releases before.
	v2510 = "25.10"
)

// messages is every message that this program uses, with the release that
// first had it in this form, as computed from the releases' own API files.
func messages() []message {
	return []message{
		{"", v2202, (*memclnt.ControlPing)(nil)},
		{"", v2202, (*memclnt.ControlPingReply)(nil)},
		{"", v2202, (*vpe.ShowVersion)(nil)},
		{"", v2202, (*vpe.ShowVersionReply)(nil)},
		{"", v2202, (*vlib.CliInband)(nil)},
		{"", v2202, (*vlib.CliInbandReply)(nil)},

		{"", v2202, (*interfaces.SwInterfaceDump)(nil)},
		{"", v2202, (*interfaces.SwInterfaceDetails)(nil)},
		{"", v2202, (*interfaces.SwInterfaceTagAddDel)(nil)},
		{"", v2202, (*interfaces.SwInterfaceTagAddDelReply)(nil)},
		{"", v2202, (*interfaces.SwInterfaceSetFlags)(nil)},
		{"", v2202, (*interfaces.SwInterfaceSetFlagsReply)(nil)},
		{"", v2202, (*interfaces.SwInterfaceSetMtu)(nil)},
		{"", v2202, (*interfaces.SwInterfaceSetMtuReply)(nil)},
		{"", v2202, (*interfaces.SwInterfaceSetMacAddress)(nil)},
		{"", v2202, (*interfaces.SwInterfaceSetMacAddressReply)(nil)},
		{"", v2202, (*interfaces.SwInterfaceSetRxMode)(nil)},
		{"", v2202, (*interfaces.SwInterfaceSetRxModeReply)(nil)},
		{"", v2202, (*interfaces.SwInterfaceRxPlacementDump)(nil)},
		{"", v2202, (*interfaces.SwInterfaceRxPlacementDetails)(nil)},
		{"", v2202, (*interfaces.SwInterfaceSetTable)(nil)},
		{"", v2202, (*interfaces.SwInterfaceSetTableReply)(nil)},
		{"", v2202, (*interfaces.SwInterfaceSetUnnumbered)(nil)},
		{"", v2202, (*interfaces.SwInterfaceSetUnnumberedReply)(nil)},
		{"", v2202, (*interfaces.SwInterfaceAddDelAddress)(nil)},
		{"", v2202, (*interfaces.SwInterfaceAddDelAddressReply)(nil)},
		{"", v2202, (*interfaces.CreateLoopbackInstance)(nil)},
		{"", v2202, (*interfaces.CreateLoopbackInstanceReply)(nil)},
		{"", v2202, (*interfaces.DeleteLoopback)(nil)},
		{"", v2202, (*interfaces.DeleteLoopbackReply)(nil)},

		{"", v2202, (*ip6_nd.SwInterfaceIP6ndRaConfig)(nil)},
		{"", v2202, (*ip6_nd.SwInterfaceIP6ndRaConfigReply)(nil)},
		{"", v2202, (*ip_neighbor.IPNeighborAddDel)(nil)},
		{"", v2202, (*ip_neighbor.IPNeighborAddDelReply)(nil)},
		{"", v2202, (*ip_neighbor.IPNeighborDump)(nil)},
		{"", v2202, (*ip_neighbor.IPNeighborDetails)(nil)},

		{"", v2202, (*ip.SwInterfaceIP6EnableDisable)(nil)},
		{"", v2202, (*ip.SwInterfaceIP6EnableDisableReply)(nil)},
		{"", v2202, (*ip.IPAddressDump)(nil)},
		{"", v2202, (*ip.IPAddressDetails)(nil)},
		{"", v2202, (*ip.IPTableAddDel)(nil)},
		{"", v2202, (*ip.IPTableAddDelReply)(nil)},
		{"", v2202, (*ip.IPTableDump)(nil)},
		{"", v2202, (*ip.IPTableDetails)(nil)},
		{"", v2306, (*ip.SetIPFlowHashV3)(nil)},
		{"", v2306, (*ip.SetIPFlowHashV3Reply)(nil)},
		{"", v2202, (*ip.IPRouteAddDelV2)(nil)},
		{"", v2202, (*ip.IPRouteAddDelV2Reply)(nil)},
		{"", v2202, (*ip.IPRouteV2Dump)(nil)},
		{"", v2202, (*ip.IPRouteV2Details)(nil)},
		{"", v2202, (*fib.FibSourceAdd)(nil)},
		{"", v2202, (*fib.FibSourceAddReply)(nil)},
		{"", v2202, (*fib.FibSourceDump)(nil)},
		{"", v2202, (*fib.FibSourceDetails)(nil)},

		{"", v2202, (*sr.SrLocalsidAddDel)(nil)},
		{"", v2202, (*sr.SrLocalsidAddDelReply)(nil)},
		{"", v2202, (*sr.SrLocalsidsDump)(nil)},
		{"", v2202, (*sr.SrLocalsidsDetails)(nil)},
		{"", v2306, (*sr.SrPolicyAddV2)(nil)},
		{"", v2306, (*sr.SrPolicyAddV2Reply)(nil)},
		{"", v2202, (*sr.SrPolicyMod)(nil)},
		{"", v2202, (*sr.SrPolicyModReply)(nil)},
		{"", v2202, (*sr.SrPolicyDel)(nil)},
		{"", v2202, (*sr.SrPolicyDelReply)(nil)},
		{"", v2306, (*sr.SrPoliciesV2Dump)(nil)},
		{"", v2306, (*sr.SrPoliciesV2Details)(nil)},
		{"", v2202, (*sr.SrPoliciesWithSlIndexDump)(nil)},
		{"", v2202, (*sr.SrPoliciesWithSlIndexDetails)(nil)},
		{"", v2202, (*sr.SrSteeringAddDel)(nil)},
		{"", v2202, (*sr.SrSteeringAddDelReply)(nil)},
		{"", v2202, (*sr.SrSteeringPolDump)(nil)},
		{"", v2202, (*sr.SrSteeringPolDetails)(nil)},
		{"", v2202, (*sr.SrSetEncapSource)(nil)},
		{"", v2202, (*sr.SrSetEncapSourceReply)(nil)},
		{"", v2202, (*sr.SrSetEncapHopLimit)(nil)},
		{"", v2202, (*sr.SrSetEncapHopLimitReply)(nil)},

		{GroupAFPacket, v2206, (*af_packet.AfPacketCreateV3)(nil)},
		{GroupAFPacket, v2206, (*af_packet.AfPacketCreateV3Reply)(nil)},
		{GroupAFPacket, v2202, (*af_packet.AfPacketDelete)(nil)},
		{GroupAFPacket, v2202, (*af_packet.AfPacketDeleteReply)(nil)},
		{GroupAFXDP, v2310, (*af_xdp.AfXdpCreateV3)(nil)},
		{GroupAFXDP, v2310, (*af_xdp.AfXdpCreateV3Reply)(nil)},
		{GroupAFXDP, v2202, (*af_xdp.AfXdpDelete)(nil)},
		{GroupAFXDP, v2202, (*af_xdp.AfXdpDeleteReply)(nil)},
		{GroupMemif, v2510, (*memif.MemifSocketFilenameAddDelV2)(nil)},
		{GroupMemif, v2510, (*memif.MemifSocketFilenameAddDelV2Reply)(nil)},
		{GroupMemif, v2510, (*memif.MemifSocketFilenameDump)(nil)},
		{GroupMemif, v2510, (*memif.MemifSocketFilenameDetails)(nil)},
		{GroupMemif, v2510, (*memif.MemifCreateV2)(nil)},
		{GroupMemif, v2510, (*memif.MemifCreateV2Reply)(nil)},
		{GroupMemif, v2510, (*memif.MemifDelete)(nil)},
		{GroupMemif, v2510, (*memif.MemifDeleteReply)(nil)},
		{GroupMemif, v2510, (*memif.MemifDump)(nil)},
		{GroupMemif, v2510, (*memif.MemifDetails)(nil)},
		{GroupACL, v2510, (*acl.ACLAddReplace)(nil)},
		{GroupACL, v2510, (*acl.ACLAddReplaceReply)(nil)},
		{GroupACL, v2510, (*acl.ACLDel)(nil)},
		{GroupACL, v2510, (*acl.ACLDelReply)(nil)},
		{GroupACL, v2510, (*acl.ACLDump)(nil)},
		{GroupACL, v2510, (*acl.ACLDetails)(nil)},
		{GroupABF, v2510, (*abf.AbfPolicyAddDel)(nil)},
		{GroupABF, v2510, (*abf.AbfPolicyAddDelReply)(nil)},
		{GroupABF, v2510, (*abf.AbfPolicyDump)(nil)},
		{GroupABF, v2510, (*abf.AbfPolicyDetails)(nil)},
		{GroupABF, v2510, (*abf.AbfItfAttachAddDel)(nil)},
		{GroupABF, v2510, (*abf.AbfItfAttachAddDelReply)(nil)},
		{GroupABF, v2510, (*abf.AbfItfAttachDump)(nil)},
		{GroupABF, v2510, (*abf.AbfItfAttachDetails)(nil)},
		{GroupDPDK, v2510, (*interfaces.HwInterfaceSetMtu)(nil)},
		{GroupDPDK, v2510, (*interfaces.HwInterfaceSetMtuReply)(nil)},
		{GroupDPDK, v2510, (*l2.BridgeDomainDump)(nil)},
		{GroupDPDK, v2510, (*l2.BridgeDomainDetails)(nil)},
		{GroupDPDK, v2510, (*l2.BridgeDomainAddDelV2)(nil)},
		{GroupDPDK, v2510, (*l2.BridgeDomainAddDelV2Reply)(nil)},
		{GroupDPDK, v2510, (*l2.SwInterfaceSetL2Bridge)(nil)},
		{GroupDPDK, v2510, (*l2.SwInterfaceSetL2BridgeReply)(nil)},
		{GroupDPDK, v2510, (*classify.ClassifyTableIds)(nil)},
		{GroupDPDK, v2510, (*classify.ClassifyTableIdsReply)(nil)},
		{GroupDPDK, v2510, (*classify.ClassifyTableInfo)(nil)},
		{GroupDPDK, v2510, (*classify.ClassifyTableInfoReply)(nil)},
		{GroupDPDK, v2510, (*classify.ClassifyAddDelTable)(nil)},
		{GroupDPDK, v2510, (*classify.ClassifyAddDelTableReply)(nil)},
		{GroupDPDK, v2510, (*classify.ClassifySessionDump)(nil)},
		{GroupDPDK, v2510, (*classify.ClassifySessionDetails)(nil)},
		{GroupDPDK, v2510, (*classify.ClassifyAddDelSession)(nil)},
		{GroupDPDK, v2510, (*classify.ClassifyAddDelSessionReply)(nil)},
		{GroupDPDK, v2510, (*classify.ClassifySetInterfaceL2Tables)(nil)},
		{GroupDPDK, v2510, (*classify.ClassifySetInterfaceL2TablesReply)(nil)},
	}
}

// idLookup is what GoVPP's connection offers to look up a message.
type idLookup interface {
	GetMessageID(api.Message) (uint16, error)
}

// missingMessages checks the table against what VPP said it has. A request is
// no good without its reply, so both are in the table.
func missingMessages(l idLookup, require []Group) []MissingMessage {
	var missing []MissingMessage
	for _, m := range messages() {
		if m.group != "" && !slices.Contains(require, m.group) {
			continue
		}
		if _, err := l.GetMessageID(m.msg); err != nil {
			missing = append(missing, MissingMessage{
				Name: m.msg.GetMessageName(), CRC: m.msg.GetCrcString(),
				Versions: m.since + " and later", Plugin: plugins[m.group],
			})
		}
	}
	return missing
}
