package lab

import (
	"github.com/sidewinder-net/sidewinder/test/lab/fabric"
	"github.com/sidewinder-net/sidewinder/test/lab/ns"
)

// LinkDrops are the packets that links of the nodes, their routers and their pods
// have dropped so far, as a link does whose queue is full because its receiver
// gets no processor: a loss that is the machine's.
func (l *Lab) LinkDrops() (uint64, error) {
	var places []string
	for _, n := range l.Nodes() {
		places = append(places, n.Name, fabric.TorName(n.ID))
		for _, p := range n.Pods() {
			places = append(places, p.Name)
		}
	}
	var sum uint64
	for _, place := range places {
		h, err := ns.Handle(place)
		if err != nil {
			return 0, err
		}
		links, err := h.LinkList()
		h.Close()
		if err != nil {
			return 0, err
		}
		for _, link := range links {
			if s := link.Attrs().Statistics; s != nil {
				sum += s.RxDropped + s.TxDropped
			}
		}
	}
	return sum, nil
}
