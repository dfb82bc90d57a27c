// Package binapi is all that this program knows of VPP's binary API: how to
// connect, which messages must be there, and small typed calls by subject. No
// other package imports GoVPP.
//
// A call is a value (*Call) made by a constructor such as SRPolicyAdd. Conn.Do
// sends any number of them back to back and then collects the replies, in
// order: VPP answers a client in the order of its requests, and one call at a
// time would spend nearly all of the time waiting.
package binapi
