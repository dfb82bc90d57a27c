package switchover

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// TestTolerateGaps: a connection that the kernel carried, and then did not see for
// megabytes, goes on through a kernel that drops invalid packets, as kube-proxy
// has it.
func TestTolerateGaps(t *testing.T) {
	inNamespace(t)
	router, err := netns.Get()
	require.NoError(t, err)
	defer router.Close()
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
	var hosts [2]netns.NsHandle
	for i := range hosts {
		hosts[i], err = netns.New()
		require.NoError(t, err)
		defer hosts[i].Close()
		require.NoError(t, netns.Set(router))
		name := fmt.Sprintf("r%d", i)
		require.NoError(t, netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(hosts[i])),
		}))
		address(t, name, fmt.Sprintf("10.0.%d.1/24", i))
		require.NoError(t, netns.Set(hosts[i]))
		address(t, "eth0", fmt.Sprintf("10.0.%d.2/24", i))
		require.NoError(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(fmt.Sprintf("10.0.%d.1", i))}))
	}
	server, err := net.Listen("tcp", "10.0.1.2:7000")
	require.NoError(t, err)
	defer server.Close()
	go func() {
		if c, err := server.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()

	require.NoError(t, netns.Set(router))
	nft, err := nftables.New()
	require.NoError(t, err)
	dropInvalid(nft)
	if err := nft.Flush(); err != nil {
		t.Skip("needs nf_tables with connection tracking: ", err)
	}
	require.NoError(t, TolerateGaps())
	require.NoError(t, TolerateGaps(), "again")
	require.NoError(t, netns.Set(hosts[0]))
	client, err := net.DialTimeout("tcp", "10.0.1.2:7000", 5*time.Second)
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, netns.Set(router))
	echo := func(n int) error {
		_ = client.SetDeadline(time.Now().Add(5 * time.Second))
		go func() { _, _ = client.Write(make([]byte, n)) }()
		_, err := io.ReadFull(client, make([]byte, n))
		return err
	}
	require.NoError(t, echo(100<<10))
	unseen := nft.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "unseen"})
	nft.AddRule(&nftables.Rule{Table: unseen, Exprs: []expr.Any{&expr.Notrack{}}, Chain: nft.AddChain(&nftables.Chain{
		Name: "all", Table: unseen, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})})
	require.NoError(t, nft.Flush())
	require.NoError(t, echo(20<<20), "past connection tracking, as through VPP")
	nft.DelTable(unseen)
	require.NoError(t, nft.Flush())
	require.NoError(t, echo(100<<10), "through the kernel again")
}

// dropInvalid: ct state invalid drop, for what is forwarded.
func dropInvalid(nft *nftables.Conn) {
	table := nft.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "firewall"})
	nft.AddRule(&nftables.Rule{
		Table: table,
		Chain: nft.AddChain(&nftables.Chain{
			Name: "forward", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
		}),
		Exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitINVALID), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
			&expr.Verdict{Kind: expr.VerdictDrop},
		},
	})
}

func address(t *testing.T, link, prefix string) {
	t.Helper()
	l, err := netlink.LinkByName(link)
	require.NoError(t, err)
	a, err := netlink.ParseAddr(prefix)
	require.NoError(t, err)
	require.NoError(t, netlink.AddrAdd(l, a))
	require.NoError(t, netlink.LinkSetUp(l))
}
