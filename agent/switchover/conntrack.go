package switchover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// sysctlLiberal is net.netfilter.nf_conntrack_tcp_be_liberal, of the calling
// thread's network namespace. It is there when connection tracking is.
const sysctlLiberal = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal"

// TolerateGaps has the kernel's connection tracking not take TCP packets for
// invalid whose sequence numbers it does not expect. Of a connection that VPP
// carried for a while it has seen the beginning, not what followed; when the
// kernel carries it again, kube-proxy and others drop what is "invalid", and the
// connection hangs for ever. Connection tracking may come at any time: this is to
// be called again and again.
func TolerateGaps() error {
	raw, err := os.ReadFile(sysctlLiberal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && strings.TrimSpace(string(raw)) == "0" {
		err = os.WriteFile(sysctlLiberal, []byte("1"), 0o644)
	}
	if err != nil {
		return fmt.Errorf("TCP connections may hang when the kernel carries them after VPP, where a firewall drops invalid packets: "+
			"set net.netfilter.nf_conntrack_tcp_be_liberal to 1 on the host: %w", err)
	}
	return nil
}
