package network

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/types"
)

var (
	firstMAC  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	secondMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

// inNamespace runs f in a network namespace of its own, with two links that are
// down.
func inNamespace(t *testing.T, f func(t *testing.T, n *Network)) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		n, err := Open()
		if err != nil {
			t.Error(err)
			return
		}
		defer n.Close()
		pair := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0", HardwareAddr: firstMAC}, PeerName: "eth1", PeerHardwareAddr: secondMAC,
		}
		if err := n.h.LinkAdd(pair); err != nil {
			t.Errorf("add two links: %v", err)
			return
		}
		f(t, n)
	}()
	<-done
}

func eth(name string, mac net.HardwareAddr, addresses ...*types.IPAddress) *types.Interface {
	return &types.Interface{Device: name, Name: name, HwAddr: mac.String(), Mtu: 1400, IPAddresses: addresses}
}

func v4(address, bits string) *types.IPAddress { return &types.IPAddress{Address: address, Mask: bits} }

func (n *Network) one(t *testing.T, name string) *types.Interface {
	t.Helper()
	all, err := n.Interfaces()
	if err != nil {
		t.Error(err)
	}
	for _, i := range all {
		if i.Name == name {
			return i
		}
	}
	t.Errorf("there is no %s among %v", name, all)
	return &types.Interface{}
}

func TestAPodsNetwork(t *testing.T) {
	inNamespace(t, func(t *testing.T, n *Network) {
		// The link with the second address becomes eth0; who had the name, eth1.
		if _, err := n.UpdateInterface(eth("eth0", secondMAC, v4("10.9.0.5", "24"))); err != nil {
			t.Error(err)
			return
		}
		got := n.one(t, "eth0")
		if got.HwAddr != secondMAC.String() || got.Mtu != 1400 || got.RawFlags&unix.IFF_UP == 0 || len(got.IPAddresses) == 0 || got.IPAddresses[0].Address != "10.9.0.5" {
			t.Errorf("eth0 is %v", got)
		}
		if other := n.one(t, "eth1"); other.HwAddr != firstMAC.String() {
			t.Errorf("eth1 is %v", other)
		}
		// Another address takes the first one's place.
		if _, err := n.UpdateInterface(eth("eth0", secondMAC, v4("10.9.0.6", "24"))); err != nil {
			t.Error(err)
		}
		if got := n.one(t, "eth0"); len(got.IPAddresses) == 0 || got.IPAddresses[0].Address != "10.9.0.6" {
			t.Errorf("eth0 is %v", got)
		}
		routes, err := n.UpdateRoutes([]*types.Route{
			{Device: "eth0", Gateway: "10.9.1.1"}, // reachable by the next alone
			{Device: "eth0", Dest: "10.9.1.0/24", Scope: uint32(netlink.SCOPE_LINK)},
			{Device: "eth0", Dest: "10.9.2.2", Source: "10.9.0.6", Scope: uint32(netlink.SCOPE_LINK)},
		})
		if err != nil {
			t.Error(err)
			return
		}
		var seen []string
		for _, r := range routes {
			seen = append(seen, r.Dest+" via "+r.Gateway+" on "+r.Device)
		}
		for _, want := range []string{" via 10.9.1.1 on eth0", "10.9.1.0/24 via  on eth0", "10.9.2.2/32 via  on eth0"} {
			if !strings.Contains(strings.Join(seen, "\n")+"\n", want+"\n") {
				t.Errorf("no route %q among %q", want, seen)
			}
		}
		if _, err := n.UpdateRoutes([]*types.Route{{Device: "eth0", Gateway: "10.9.1.1"}}); err != nil {
			t.Errorf("the same route once more: %v", err)
		}
		neighbour := &types.ARPNeighbor{ToIPAddress: v4("10.9.0.1", ""), Device: "eth0", Lladdr: "02:00:00:00:00:09"}
		if err := n.AddNeighbors([]*types.ARPNeighbor{neighbour}); err != nil {
			t.Error(err)
		}
		link, err := n.h.LinkByName("eth0")
		if err != nil {
			t.Error(err)
			return
		}
		list, err := n.h.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
		if err != nil || len(list) != 1 || list[0].HardwareAddr.String() != neighbour.Lladdr || list[0].State != netlink.NUD_PERMANENT {
			t.Errorf("neighbours %v, %v", list, err)
		}
	})
}

// A machine from a template has another hardware address than the pod's.
func TestALinkFoundByName(t *testing.T) {
	inNamespace(t, func(t *testing.T, n *Network) {
		mac := net.HardwareAddr{2, 0, 0, 0, 0, 7}
		if _, err := n.UpdateInterface(eth("eth1", mac, v4("10.9.0.7", "16"))); err != nil {
			t.Error(err)
		}
		if got := n.one(t, "eth1"); got.HwAddr != mac.String() {
			t.Errorf("eth1 is %v", got)
		}
	})
}

func TestWhatTheHostGetsWrong(t *testing.T) {
	inNamespace(t, func(t *testing.T, n *Network) {
		if _, err := n.UpdateInterface(eth("eth9", net.HardwareAddr{2, 0, 0, 0, 0, 9})); !errors.Is(err, ErrLinkNotFound) {
			t.Errorf("a device that is not there: %v", err)
		}
		if _, err := n.UpdateInterface(eth("eth7", make(net.HardwareAddr, 6), v4("10.0.0.1", "8"))); !errors.Is(err, ErrLinkNotFound) {
			t.Errorf("the hardware address of the loopback interface: %v", err)
		}
		bad := map[string]func() error{
			"the loopback interface": func() error { _, err := n.UpdateInterface(eth("lo", firstMAC)); return err },
			"a route on loopback":    func() error { _, err := n.UpdateRoutes([]*types.Route{{Device: "lo"}}); return err },
			"a neighbour on loopback": func() error {
				return n.AddNeighbors([]*types.ARPNeighbor{{Device: "lo", ToIPAddress: v4("10.0.0.1", ""), Lladdr: firstMAC.String()}})
			},
			"a name with a slash": func() error { _, err := n.UpdateInterface(eth("a/b", firstMAC)); return err },
			"a long name":         func() error { _, err := n.UpdateInterface(eth(strings.Repeat("a", 16), firstMAC)); return err },
			"no hardware address": func() error { _, err := n.UpdateInterface(&types.Interface{Name: "eth0"}); return err },
			"an address of another family": func() error {
				_, err := n.UpdateInterface(eth("eth0", firstMAC, &types.IPAddress{Family: types.IPFamily_v6, Address: "10.0.0.1", Mask: "8"}))
				return err
			},
			"a mask of 33 bits": func() error { _, err := n.UpdateInterface(eth("eth0", firstMAC, v4("10.0.0.1", "33"))); return err },
			"an MTU out of range": func() error {
				_, err := n.UpdateInterface(&types.Interface{Name: "eth0", HwAddr: firstMAC.String(), Mtu: 1 << 40})
				return err
			},
			"a destination of words": func() error {
				_, err := n.UpdateRoutes([]*types.Route{{Device: "eth0", Dest: "everywhere"}})
				return err
			},
			"a gateway of words":   func() error { _, err := n.UpdateRoutes([]*types.Route{{Device: "eth0", Gateway: "x"}}); return err },
			"routes without end":   func() error { _, err := n.UpdateRoutes(make([]*types.Route, maxRoutes+1)); return err },
			"a neighbour of words": func() error { return n.AddNeighbors([]*types.ARPNeighbor{{Device: "eth0"}}) },
		}
		for name, call := range bad {
			err := call()
			if _, invalid := errors.AsType[*InvalidError](err); !invalid {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := n.UpdateRoutes([]*types.Route{{Device: "eth9"}}); !errors.Is(err, ErrLinkNotFound) {
			t.Errorf("a route on nothing: %v", err)
		}
	})
}
