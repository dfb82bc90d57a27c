package traffic

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/sidewinder-net/sidewinder/test/lab/tree"
)

// overLoopback begins a conversation between two sockets of this process.
func overLoopback(t *testing.T) *Conversation {
	t.Helper()
	if _, ok := tree.Current(); ok {
		lo, err := netlink.LinkByName("lo")
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetUp(lo))
	}
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Skipf("needs a loopback address: %v", err)
	}
	dialled, err := net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr))
	require.NoError(t, err)
	accepted, err := l.AcceptTCP()
	require.NoError(t, err)
	return converse("test", l, [2]*net.TCPConn{dialled, accepted}, 500)
}

func TestConversation(t *testing.T) {
	c := overLoopback(t)
	require.Eventually(t, func() bool { return c.Result(Window{}).Sent > 50 }, 10*time.Second, 10*time.Millisecond)
	r := c.Stop()
	require.NoError(t, r.Err)
	require.Zero(t, r.Resets)
	require.Greater(t, r.Sent, 50)
	require.Equal(t, r.Sent, r.Received)
}

func TestConversationSeesAReset(t *testing.T) {
	c := overLoopback(t)
	time.Sleep(50 * time.Millisecond)
	require.NoError(t, c.ends[1].SetLinger(0))
	require.NoError(t, c.ends[1].Close())
	require.Eventually(t, func() bool { return c.Resets() > 0 }, 5*time.Second, time.Millisecond)
	r := c.Stop()
	require.ErrorContains(t, r.Err, "connection reset by peer")
}

func TestConversationSeesWrongData(t *testing.T) {
	c := overLoopback(t)
	time.Sleep(20 * time.Millisecond)
	_, err := c.ends[0].Write(make([]byte, chunkSize))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return c.Result(Window{}).Err != nil }, 5*time.Second, time.Millisecond)
	require.ErrorContains(t, c.Stop().Err, "wrong data")
}

func TestConversationSeesAStall(t *testing.T) {
	c := overLoopback(t)
	time.Sleep(20 * time.Millisecond)
	c.lines[0].depart() // a chunk that is never sent
	r := c.Stop()
	require.Zero(t, r.Resets)
	require.ErrorContains(t, r.Err, "stalled")
}

func TestCheckChunk(t *testing.T) {
	buf := make([]byte, chunkSize)
	fillChunk(buf, 7, 1)
	require.NoError(t, checkChunk(buf, 7))
	require.ErrorContains(t, checkChunk(buf, 8), "chunk 7 came where 8 was due")
	for _, place := range []int{16, 17, 1500, chunkSize - 1} {
		buf[place] ^= 1
		require.ErrorContains(t, checkChunk(buf, 7), "byte")
		buf[place] ^= 1
	}
	// A part of the stream that is lost shows, however long it is.
	for shift := 16; shift < 300; shift++ {
		other := make([]byte, chunkSize)
		fillChunk(other, 7, 1)
		copy(other[16:], buf[16+shift:])
		require.Error(t, checkChunk(other, 7), shift)
	}
}
