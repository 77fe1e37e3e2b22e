// Package network sets up the guest's own interfaces, routes and neighbours as a
// Kata runtime asks for it (kata-agent 2.8). It only adds and changes: nothing
// that is there is removed but the addresses of an interface that gets others.
// The loopback interface, over which workloads reach the agent, is out of reach.
//
// The host is asked for nothing here that it could not do on the outside: it
// carries the guest's packets. What a pod relies on is TLS to the broker and the
// registry, not who routes.
package network

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/types"
)

// ErrLinkNotFound is the text after which a runtime asks again: the device may
// still be on its way (kata-agent 1.5).
var ErrLinkNotFound = errors.New("Link not found") //nolint:staticcheck // the runtime's spelling

// InvalidError is a request that cannot be met as it stands. Its text is meant
// for the host.
type InvalidError struct{ text string }

func (e *InvalidError) Error() string { return e.text }

func invalidf(format string, args ...any) error {
	return &InvalidError{fmt.Sprintf(format, args...)}
}

// Bounds of one request.
const (
	maxAddresses = 256
	maxRoutes    = 1024
	maxMTU       = 65536
)

// Network is the network namespace that it was opened in.
type Network struct{ h *netlink.Handle }

// Open opens the namespace of the calling thread.
func Open() (*Network, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Network{h}, nil
}

// Close gives the namespace up.
func (n *Network) Close() { n.h.Close() }

// find returns the link with a hardware address or, as runtimes that restore
// machines from templates expect, the one of that name.
func (n *Network) find(mac net.HardwareAddr, name string) (netlink.Link, error) {
	links, err := n.h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, byMAC := range []bool{true, false} {
		for _, l := range links {
			a := l.Attrs()
			if a.Flags&net.FlagLoopback != 0 {
				continue // its hardware address is all zeros, which a host could ask for
			}
			if byMAC && slices.Equal(a.HardwareAddr, mac) || !byMAC && a.Name == name {
				return l, nil
			}
		}
	}
	return nil, ErrLinkNotFound
}

// address reads an address with its mask, which is a number of bits.
func address(a *types.IPAddress) (*net.IPNet, error) {
	ip := net.ParseIP(a.GetAddress())
	bits, err := strconv.Atoi(a.GetMask())
	if ip == nil || err != nil {
		return nil, invalidf("address %.64q/%.8q is malformed", a.GetAddress(), a.GetMask())
	}
	width := 128
	if v4 := ip.To4(); v4 != nil {
		ip, width = v4, 32
	}
	if (width == 32) != (a.GetFamily() == types.IPFamily_v4) || bits < 0 || bits > width {
		return nil, invalidf("address %s/%d is not of family %s", ip, bits, a.GetFamily())
	}
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, width)}, nil
}

// hasIPv6 reports whether the guest's kernel does IPv6 at all; where it does not,
// IPv6 addresses and routes are skipped, as the field does.
func (n *Network) hasIPv6() bool {
	_, err := n.h.AddrList(nil, netlink.FAMILY_V6)
	return !errors.Is(err, unix.EAFNOSUPPORT)
}

// loopback is the name that the kernel gives it in every namespace.
const loopback = "lo"

func checkName(name string) error {
	if name == loopback {
		return invalidf("the loopback interface is the agent's")
	}
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\x00") {
		return invalidf("%.32q is no name of an interface", name)
	}
	return nil
}
