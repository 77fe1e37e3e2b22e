package boot

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/dhcp"
)

// lendTime bounds the wait for a DHCP server; a machine that needs an address and
// gets none ends.
const lendTime = 60 * time.Second

var errNotEthernet = errors.New("DHCP is for Ethernet alone")

// borrow has a DHCP server lend what the command line leaves open, and sets the
// interface up with it. keep renews it.
func (n *network) borrow(ctx context.Context, link netlink.Link, log *slog.Logger) (keep func(context.Context), err error) {
	mac := link.Attrs().HardwareAddr
	if len(mac) != 6 {
		return nil, errNotEthernet
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, err
	}
	client := &dhcp.Client{
		MAC: [6]byte(mac), Logger: log,
		Dial: func() (dhcp.Transport, error) { return dhcp.Dial(link.Attrs().Index) },
	}
	bounded, cancel := context.WithTimeout(ctx, lendTime)
	defer cancel()
	l, err := client.Obtain(bounded)
	if err != nil {
		return nil, err
	}
	apply := func(l dhcp.Lease) error {
		n.address, n.gateway = l.Address, l.Gateway
		return n.configure(link)
	}
	if err := apply(l); err != nil {
		return nil, err
	}
	if len(n.dns) == 0 && n.lendDNS {
		n.dns = l.DNS
	}
	return func(ctx context.Context) {
		client.Keep(ctx, l, apply, func(old dhcp.Lease) error {
			return netlink.AddrDel(link, &netlink.Addr{IPNet: &net.IPNet{IP: old.Address.Addr().AsSlice(), Mask: net.CIDRMask(old.Address.Bits(), 32)}})
		})
	}, nil
}

// Keep renews what the machine was lent, until stop is called.
func (m *Machine) Keep(ctx context.Context) (stop func()) {
	if m.keep == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.keep(ctx)
	}()
	return func() { cancel(); <-done }
}
