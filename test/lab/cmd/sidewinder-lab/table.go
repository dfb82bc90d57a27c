package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/sidewinder-net/sidewinder/agent/status"
)

// maxPolicyTables is how many nodes' policies are shown in full; of a larger lab
// the first node's are.
const maxPolicyTables = 5

// table shows nodes, locators, SIDs and policies as the agents tell them.
func table(all []status.Status) string {
	var b strings.Builder
	endpoint := map[string]string{}
	for _, s := range all {
		endpoint[s.Locator] = s.Node
		for _, sid := range s.SIDs {
			endpoint[strings.TrimSuffix(sid.SID, "/128")] = s.Node
		}
	}
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tDATAPLANE\tSOURCE\tLOCATOR\tSID\tBEHAVIOUR")
	for _, s := range all {
		head := []string{s.Node, strings.TrimSpace(s.Dataplane.Kind + " " + s.Dataplane.Version), s.EncapSource, s.Locator}
		for i, sid := range s.SIDs {
			if i > 0 {
				head = []string{"", "", "", ""}
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", strings.Join(head, "\t"), strings.TrimSuffix(sid.SID, "/128"), sid.Behaviour)
		}
	}
	w.Flush()
	b.WriteString("\n")
	fmt.Fprintln(w, "POLICY ON\tTO\tFAMILY\tBINDING SID\tSEGMENTS\tSTEERED PREFIXES")
	for n, s := range all {
		if len(all) > maxPolicyTables && n > 0 {
			fmt.Fprintf(w, "...\t%d nodes more, each with as many\n", len(all)-n)
			break
		}
		for i, p := range s.Policies {
			on := s.Node
			if i > 0 {
				on = ""
			}
			to := endpoint[p.Endpoint]
			if to == "" {
				to = p.Endpoint
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", on, to, p.Family, p.BSID, strings.Join(p.Lists, ", "), strings.Join(p.Prefixes, " "))
		}
	}
	w.Flush()
	return b.String()
}

// indent puts a margin before every line that is not empty.
func indent(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = "  " + l
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
