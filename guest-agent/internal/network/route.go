package network

import (
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/types"
)

// UpdateRoutes adds routes, or puts them in place of their like, and returns all
// that there are. Those without a gateway come first, for gateways must be
// reachable.
func (n *Network) UpdateRoutes(list []*types.Route) ([]*types.Route, error) {
	if len(list) > maxRoutes {
		return nil, invalidf("%d routes, at most %d are possible", len(list), maxRoutes)
	}
	var routes []netlink.Route
	for _, in := range list {
		if in.GetFamily() == types.IPFamily_v6 && !n.hasIPv6() {
			continue
		}
		r, err := n.route(in)
		if err != nil {
			return nil, err
		}
		routes = append(routes, r)
	}
	slices.SortStableFunc(routes, func(a, b netlink.Route) int { return len(a.Gw) - len(b.Gw) })
	for _, r := range routes {
		if err := n.h.RouteReplace(&r); err != nil {
			return nil, fmt.Errorf("route %s: %w", r, err)
		}
	}
	return n.Routes()
}

func (n *Network) route(in *types.Route) (netlink.Route, error) {
	if err := checkName(in.GetDevice()); err != nil {
		return netlink.Route{}, err
	}
	link, err := n.h.LinkByName(in.GetDevice())
	if err != nil {
		return netlink.Route{}, ErrLinkNotFound
	}
	r := netlink.Route{
		LinkIndex: link.Attrs().Index, Scope: netlink.Scope(in.GetScope()), Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BOOT,
		Flags: int(in.GetFlags()), MTU: int(in.GetMtu()), Family: netlink.FAMILY_V4,
	}
	if in.GetFamily() == types.IPFamily_v6 {
		r.Family = netlink.FAMILY_V6
	}
	if in.GetScope() > 255 || in.GetMtu() > maxMTU {
		return r, invalidf("scope %d or MTU %d of a route is out of range", in.GetScope(), in.GetMtu())
	}
	if in.GetDest() != "" {
		if r.Dst = destination(in.GetDest()); r.Dst == nil {
			return r, invalidf("destination %.64q of a route is malformed", in.GetDest())
		}
	}
	for _, part := range []struct {
		name, text string
		ip         *net.IP
	}{{"gateway", in.GetGateway(), &r.Gw}, {"source", in.GetSource(), &r.Src}} {
		if part.text == "" {
			continue
		}
		if *part.ip = normal(net.ParseIP(part.text)); *part.ip == nil {
			return r, invalidf("%s %.64q of a route is malformed", part.name, part.text)
		}
	}
	return r, nil
}

// destination reads a network, or an address that stands for itself; nil if it is
// neither.
func destination(text string) *net.IPNet {
	if _, dst, err := net.ParseCIDR(text); err == nil {
		return dst
	}
	ip := normal(net.ParseIP(text))
	if ip == nil {
		return nil
	}
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))}
}

// normal is the shorter form of an address.
func normal(ip net.IP) net.IP {
	if v4 := ip.To4(); v4 != nil {
		return v4
	}
	return ip
}

// Routes lists the main table. The default route has no destination.
func (n *Network) Routes() ([]*types.Route, error) {
	all, err := n.h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []*types.Route
	for _, r := range all {
		one := &types.Route{Scope: uint32(r.Scope), Flags: uint32(r.Flags), Mtu: uint32(r.MTU)} //nolint:gosec // the kernel's
		if r.Family == netlink.FAMILY_V6 {
			one.Family = types.IPFamily_v6
		}
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			one.Dest = r.Dst.String()
		}
		if r.Gw != nil {
			one.Gateway = r.Gw.String()
		}
		if r.Src != nil {
			one.Source = r.Src.String()
		}
		if link, err := n.h.LinkByIndex(r.LinkIndex); err == nil {
			one.Device = link.Attrs().Name
		}
		out = append(out, one)
	}
	return out, nil
}

// AddNeighbors adds neighbours that the kernel never asks for again.
func (n *Network) AddNeighbors(list []*types.ARPNeighbor) error {
	if len(list) > maxRoutes {
		return invalidf("%d neighbours, at most %d are possible", len(list), maxRoutes)
	}
	for _, in := range list {
		mac, err := net.ParseMAC(in.GetLladdr())
		ip := normal(net.ParseIP(in.GetToIPAddress().GetAddress()))
		if err != nil || ip == nil {
			return invalidf("neighbour %.64q at %.32q is malformed", in.GetToIPAddress().GetAddress(), in.GetLladdr())
		}
		if err := checkName(in.GetDevice()); err != nil {
			return err
		}
		link, err := n.h.LinkByName(in.GetDevice())
		if err != nil {
			return ErrLinkNotFound
		}
		state := int(in.GetState())
		if state == 0 {
			state = netlink.NUD_PERMANENT
		}
		family := netlink.FAMILY_V4
		if len(ip) == net.IPv6len {
			family = netlink.FAMILY_V6
		}
		if err := n.h.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, Family: family, State: state, Flags: int(in.GetFlags()), IP: ip, HardwareAddr: mac,
		}); err != nil {
			return fmt.Errorf("neighbour %s: %w", ip, err)
		}
	}
	return nil
}
