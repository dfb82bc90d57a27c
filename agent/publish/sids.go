// Package publish holds how a node comes by its locator and what it tells its
// peers, whatever the store is: a folder of files or an API server.
package publish

import (
	"encoding/binary"
	"net/netip"

	"github.com/sidewinder-net/sidewinder/agent/cluster"
	"github.com/sidewinder-net/sidewinder/agent/dataplane"
	"github.com/sidewinder-net/sidewinder/api/v1alpha1"
)

// Functions of a node's SIDs: the 16 bits after the locator, in the range of
// local C-SIDs (RFC 9800 §7.2). They are the same on every node, so that a
// restart finds the same SIDs again.
const (
	FunctionDT4 uint16 = 0xE004
	FunctionDT6 uint16 = 0xE006
)

// SIDs are the SIDs of a node with the given locator, a /48: uN on the locator
// itself, End.DT4 and End.DT6 for the main table.
func SIDs(locator netip.Prefix) []cluster.SID {
	return []cluster.SID{
		{SID: locator, Behaviour: dataplane.BehaviourUN},
		{SID: functionSID(locator, FunctionDT4), Behaviour: dataplane.BehaviourDT4},
		{SID: functionSID(locator, FunctionDT6), Behaviour: dataplane.BehaviourDT6},
	}
}

func functionSID(locator netip.Prefix, function uint16) netip.Prefix {
	b := locator.Masked().Addr().As16()
	binary.BigEndian.PutUint16(b[v1alpha1.LocatorBits/8:], function)
	return netip.PrefixFrom(netip.AddrFrom16(b), 128)
}
