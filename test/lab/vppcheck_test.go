package lab

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sidewinder-net/sidewinder/agent/status"
)

// captured is what VPP 25.10 printed on a lab's node1 of three; with "-surplus"
// after entries were added by hand.
func captured(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "vpp-25.10", name+".txt"))
	require.NoError(t, err)
	return string(raw)
}

// capturedStatus is node1's status at that time.
func capturedStatus() status.Status {
	policy := func(node, family string, prefix string) status.Policy {
		return status.Policy{
			BSID:  "fcbb:bb00:1:eb51:" + node + "::" + family,
			Lists: []string{"[fcbb:bb00:" + node + ":e00" + family + "::]"}, Prefixes: []string{prefix},
		}
	}
	return status.Status{
		EncapSource: "fd53:77:0:1::2",
		SIDs: []status.SID{
			{SID: "fcbb:bb00:1::/48", Behaviour: "uN"},
			{SID: "fcbb:bb00:1:e004::", Behaviour: "End.DT4"},
			{SID: "fcbb:bb00:1:e006::", Behaviour: "End.DT6"},
		},
		Policies: []status.Policy{
			policy("2", "4", "10.244.2.0/24"), policy("2", "6", "fd10:244:2::/64"),
			policy("3", "4", "10.244.3.0/24"), policy("3", "6", "fd10:244:3::/64"),
		},
	}
}

// comparison of one case: how the status or the text differ from what was
// captured, and all that must be said of it.
type comparison struct {
	name   string
	file   string
	status func(*status.Status)
	text   func(string) string
	want   []string
}

func (c comparison) run(t *testing.T, standard string, compare func(status.Status, string) []error) {
	t.Helper()
	s := capturedStatus()
	if c.status != nil {
		c.status(&s)
	}
	if c.file == "" {
		c.file = standard
	}
	text := captured(t, c.file)
	if c.text != nil {
		changed := c.text(text)
		require.NotEqual(t, text, changed)
		text = changed
	}
	var got []string
	for _, err := range compare(s, text) {
		got = append(got, err.Error())
	}
	require.Len(t, got, len(c.want), "%s", strings.Join(got, "\n"))
	for i, want := range c.want {
		require.Contains(t, got[i], want)
	}
}

// swap exchanges two texts.
func swap(a, b string) func(string) string {
	return strings.NewReplacer(a, b, b, a).Replace
}

func carriageReturns(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func TestComparePolicies(t *testing.T) {
	for _, c := range []comparison{
		{name: "the same"},
		{name: "the same, as a terminal gets it", text: carriageReturns},
		{name: "missing", status: func(s *status.Status) { s.Policies[0].BSID = "fcbb:bb00:1:eb51:9::4" },
			want: []string{"BSID fcbb:bb00:1:eb51:2::4 is surplus", "BSID fcbb:bb00:1:eb51:9::4 is missing"}},
		{name: "nothing there", text: func(string) string { return "" }, want: slices.Repeat([]string{"is missing"}, 4)},
		{name: "surplus", file: "policies-surplus", want: []string{
			"BSID 2001:db8::1 is surplus: the status does not have it (Encapsulation, Default, table 0, source fd53:77:0:1::2, segment lists [2001:db8:1::1 2001:db8:1::2] weight 3, [2001:db8:2::1] weight 5)",
			"BSID 2001:db8::2 is surplus: the status does not have it (SRH insertion",
		}},
		{name: "segments of two policies swapped", text: swap("< fcbb:bb00:2:e004::,", "< fcbb:bb00:3:e004::,"), want: []string{
			`BSID fcbb:bb00:1:eb51:2::4 is "Encapsulation, Default, table 0, source fd53:77:0:1::2, segment lists [fcbb:bb00:3:e004::]", the status has`,
			`BSID fcbb:bb00:1:eb51:3::4 is "Encapsulation, Default, table 0, source fd53:77:0:1::2, segment lists [fcbb:bb00:2:e004::]", the status has`,
		}},
		{name: "segments of a policy's families swapped", text: swap("< fcbb:bb00:2:e004::,", "< fcbb:bb00:2:e006::,"),
			want: []string{"BSID fcbb:bb00:1:eb51:2::4 is", "BSID fcbb:bb00:1:eb51:2::6 is"}},
		{name: "another source", status: func(s *status.Status) { s.EncapSource = "fd53:77:0:9::2" }, want: slices.Repeat([]string{"source fd53:77:0:1::2"}, 4)},
		{name: "another weight", text: func(s string) string { return strings.Replace(s, "weight: 1", "weight: 2", 1) }, want: []string{"[fcbb:bb00:2:e004::] weight 2"}},
		{name: "several lists, in another order", file: "policies-surplus", status: func(s *status.Status) {
			s.Policies = append(s.Policies, status.Policy{BSID: "2001:db8::1", Lists: []string{"[2001:db8:2::1] weight 5, [2001:db8:1::1 2001:db8:1::2] weight 3"}})
		}, want: []string{"BSID 2001:db8::2 is surplus"}},
		{name: "several lists, segments in another order", file: "policies-surplus", status: func(s *status.Status) {
			s.Policies = append(s.Policies, status.Policy{BSID: "2001:db8::1", Lists: []string{"[2001:db8:2::1] weight 5", "[2001:db8:1::2 2001:db8:1::1] weight 3"}})
		}, want: []string{"BSID 2001:db8::1 is", "BSID 2001:db8::2 is surplus"}},
		{name: "inserting instead of encapsulating", file: "policies-surplus", status: func(s *status.Status) {
			s.Policies = append(s.Policies, status.Policy{BSID: "2001:db8::2", Lists: []string{"[2001:db8:1::1 2001:db8:1::2]"}})
		}, want: []string{"BSID 2001:db8::1 is surplus", `BSID 2001:db8::2 is "SRH insertion`}},
		{name: "another layout", text: func(s string) string { return strings.Replace(s, "Segment Lists:", "Candidate paths:", 1) },
			want: []string{`the line "Candidate paths:" is not understood`}},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, "policies", comparePolicies) })
	}
}

func TestCompareSteering(t *testing.T) {
	for _, c := range []comparison{
		{name: "the same"},
		{name: "the same, as a terminal gets it", text: carriageReturns},
		{name: "missing", status: func(s *status.Status) { s.Policies[0].Prefixes = append(s.Policies[0].Prefixes, "10.244.9.0/24") },
			want: []string{"10.244.9.0/24 is missing (into BSID fcbb:bb00:1:eb51:2::4)"}},
		{name: "a prefix is not its wider one", status: func(s *status.Status) { s.Policies[0].Prefixes = []string{"10.244.2.0/25"} },
			want: []string{"10.244.2.0/24 is surplus", "10.244.2.0/25 is missing"}},
		{name: "surplus, of one prefix in two tables", file: "steering-policies-surplus", want: []string{
			"192.0.2.0/24 (into BSID 2001:db8::1) is surplus: VPP has it twice", "192.0.2.0/24 is surplus: the status does not have it", "host-uplink0 is surplus",
		}},
		{name: "surplus, of a prefix that is wanted once", text: func(s string) string { return s + "L3 10.244.2.0/24\tfcbb:bb00:1:eb51:2::4\n" },
			want: []string{"10.244.2.0/24 (into BSID fcbb:bb00:1:eb51:2::4) is surplus: VPP has it twice"}},
		{name: "two swapped", text: swap("fcbb:bb00:1:eb51:2::4", "fcbb:bb00:1:eb51:3::4"), want: []string{
			`10.244.2.0/24 is "into BSID fcbb:bb00:1:eb51:3::4", the status has "into BSID fcbb:bb00:1:eb51:2::4"`,
			`10.244.3.0/24 is "into BSID fcbb:bb00:1:eb51:2::4", the status has "into BSID fcbb:bb00:1:eb51:3::4"`,
		}},
		{name: "another layout", text: func(s string) string { return strings.Replace(s, "L3 10", "IPv4 10", 1) }, want: []string{"is not understood"}},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, "steering-policies", compareSteering) })
	}
}

func TestCompareSIDs(t *testing.T) {
	for _, c := range []comparison{
		{name: "the same"},
		{name: "the same, as a terminal gets it", text: carriageReturns},
		{name: "the same, as /128", status: func(s *status.Status) { s.SIDs[1].SID += "/128" }},
		{name: "missing", status: func(s *status.Status) { s.SIDs[1].SID = "fcbb:bb00:1:e005::" },
			want: []string{"fcbb:bb00:1:e004::/128 is surplus", "fcbb:bb00:1:e005::/128 is missing (End.DT4 table 0)"}},
		{name: "surplus", file: "localsids-surplus", want: []string{
			"2001:db8:e::1/128 is surplus: the status does not have it (End)", "2001:db8:e::2/128 is surplus",
			"2001:db8:e::4/128 is surplus: the status does not have it (End.DT4 table 7)",
			"2001:db8:e::6/128 is surplus: the status does not have it (End.DT6 table 7)",
			"2001:db8:f::/48 is surplus: the status does not have it (uN)", "2001:db8:f::/64 is surplus",
		}},
		{name: "DT4 and DT6 swapped", text: swap("DT4 (Endpoint with decapsulation and specific IPv4", "DT6 (Endpoint with decapsulation and specific IPv6"), want: []string{
			`fcbb:bb00:1:e004::/128 is "End.DT6 table 0", the status has "End.DT4 table 0"`,
			`fcbb:bb00:1:e006::/128 is "End.DT4 table 0", the status has "End.DT6 table 0"`,
		}},
		{name: "another table", text: func(s string) string { return strings.Replace(s, "Table: \t0", "Table: \t7", 1) },
			want: []string{`fcbb:bb00:1:e004::/128 is "End.DT4 table 7", the status has "End.DT4 table 0"`}},
		{name: "the status has another table", status: func(s *status.Status) { s.SIDs[2].Table = 7 },
			want: []string{`fcbb:bb00:1:e006::/128 is "End.DT6 table 0", the status has "End.DT6 table 7"`}},
		{name: "a wider prefix", text: func(s string) string { return strings.Replace(s, "::/48", "::/64", 1) },
			want: []string{"fcbb:bb00:1::/48 is missing (uN)", "fcbb:bb00:1::/64 is surplus"}},
		{name: "another layout", text: func(s string) string { return strings.Replace(s, "Address:", "SID:", 1) }, want: []string{"is not understood"}},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, "localsids", compareSIDs) })
	}
}

func TestTwiceInTheStatus(t *testing.T) {
	s := capturedStatus()
	s.Policies[2].Prefixes = []string{"10.244.2.0/24"}
	require.ErrorContains(t, errors.Join(compareSteering(s, captured(t, "steering-policies"))...), "10.244.2.0/24 is twice in the status")
}

func TestCarried(t *testing.T) {
	sids, err := parseLocalSIDs(strings.Replace(captured(t, "localsids"), "[0 packets : 0 bytes]", "[22181 packets : 3430828 bytes]", 1))
	require.NoError(t, err)
	require.Equal(t, map[netip.Addr]uint64{
		netip.MustParseAddr("fcbb:bb00:1::"): 22181, netip.MustParseAddr("fcbb:bb00:1:e004::"): 0, netip.MustParseAddr("fcbb:bb00:1:e006::"): 0,
	}, carried(sids))
	_, err = parseLocalSIDs("Address: fcbb:bb00:1::/48\nGood traffic: many")
	require.ErrorContains(t, err, "is not understood")
}
