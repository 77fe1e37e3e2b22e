package network

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/types"
)

// UpdateInterface gives the link with the interface's hardware address its
// addresses, name and MTU, and brings it up. A link of that name which has
// another hardware address gets out of the way.
func (n *Network) UpdateInterface(in *types.Interface) (*types.Interface, error) {
	mac, addresses, err := n.checkInterface(in)
	if err != nil {
		return nil, err
	}
	link, err := n.find(mac, in.Name)
	if err != nil {
		return nil, err
	}
	if err := n.h.LinkSetDown(link); err != nil {
		return nil, fmt.Errorf("take %s down: %w", link.Attrs().Name, err)
	}
	if err := n.rename(link, mac, in.Name); err != nil {
		return nil, err
	}
	if err := n.configure(link, in, addresses); err != nil {
		return nil, fmt.Errorf("configure %s: %w", in.Name, err)
	}
	return in, nil
}

func (n *Network) checkInterface(in *types.Interface) (net.HardwareAddr, []*net.IPNet, error) {
	mac, err := net.ParseMAC(in.GetHwAddr())
	if err != nil {
		return nil, nil, invalidf("hardware address %.32q is malformed", in.GetHwAddr())
	}
	switch err := checkName(in.GetName()); {
	case err != nil:
		return nil, nil, err
	case in.GetMtu() > maxMTU:
		return nil, nil, invalidf("an MTU of %d, at most %d is possible", in.GetMtu(), maxMTU)
	case len(in.GetIPAddresses()) > maxAddresses:
		return nil, nil, invalidf("%d addresses, at most %d are possible", len(in.GetIPAddresses()), maxAddresses)
	}
	var all []*net.IPNet
	for _, a := range in.GetIPAddresses() {
		ip, err := address(a)
		if err != nil {
			return nil, nil, err
		}
		if a.GetFamily() == types.IPFamily_v4 || n.hasIPv6() {
			all = append(all, ip)
		}
	}
	return mac, all, nil
}

// rename gives the link its name. Where another has it, the two swap.
func (n *Network) rename(link netlink.Link, mac net.HardwareAddr, name string) error {
	old := link.Attrs().Name
	if old == name { // perhaps found by it
		return n.h.LinkSetHardwareAddr(link, mac)
	}
	other, err := n.h.LinkByName(name)
	if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent {
		return n.h.LinkSetName(link, name)
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", name, err)
	}
	up := other.Attrs().Flags&net.FlagUp != 0
	if err := n.h.LinkSetDown(other); err != nil {
		return err
	}
	const between = "vouchsafe-swap" // shorter than IFNAMSIZ
	for _, step := range []struct {
		link netlink.Link
		name string
	}{{other, between}, {link, name}, {other, old}} {
		if err := n.h.LinkSetName(step.link, step.name); err != nil {
			return fmt.Errorf("swap %s and %s: %w", old, name, err)
		}
	}
	if up {
		return n.h.LinkSetUp(other)
	}
	return nil
}

func (n *Network) configure(link netlink.Link, in *types.Interface, addresses []*net.IPNet) error {
	there, err := n.h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, a := range there {
		if !a.IP.IsLinkLocalUnicast() {
			if err := n.h.AddrDel(link, &a); err != nil {
				return err
			}
		}
	}
	for _, ip := range addresses {
		if err := n.h.AddrReplace(link, &netlink.Addr{IPNet: ip}); err != nil {
			return fmt.Errorf("address %s: %w", ip, err)
		}
	}
	if in.Mtu > 0 {
		if err := n.h.LinkSetMTU(link, int(in.Mtu)); err != nil { //nolint:gosec // bounded
			return err
		}
	}
	if in.RawFlags&unix.IFF_NOARP != 0 {
		err = n.h.LinkSetARPOff(link)
	} else {
		err = n.h.LinkSetARPOn(link)
	}
	if err != nil {
		return err
	}
	return n.h.LinkSetUp(link)
}

// Interfaces lists the links with their addresses.
func (n *Network) Interfaces() ([]*types.Interface, error) {
	links, err := n.h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var out []*types.Interface
	for _, l := range links {
		a := l.Attrs()
		one := &types.Interface{
			Device: a.Name, Name: a.Name, Mtu: uint64(a.MTU), HwAddr: a.HardwareAddr.String(), Type: l.Type(), RawFlags: a.RawFlags, //nolint:gosec // the kernel's
		}
		addresses, err := n.h.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", a.Name, err)
		}
		for _, ip := range addresses {
			ones, bits := ip.Mask.Size()
			family := types.IPFamily_v4
			if bits == 128 {
				family = types.IPFamily_v6
			}
			one.IPAddresses = append(one.IPAddresses, &types.IPAddress{Family: family, Address: ip.IP.String(), Mask: fmt.Sprint(ones)})
		}
		out = append(out, one)
	}
	return out, nil
}
