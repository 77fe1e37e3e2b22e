package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
)

// network is the parameter ip= of the kernel command line, in the form of
// Documentation/admin-guide/nfs/nfsroot.rst:
//
//	ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS0:DNS1
//
// It is for machines that no runtime configures: under Kata, the runtime sets up
// interfaces and routes over the agent's own interface. SERVER and HOSTNAME mean
// nothing here. AUTOCONF is empty, none or off, or, with neither CLIENT, GATEWAY
// nor NETMASK, dhcp, on or any: then a server is asked for these. The word alone
// (ip=dhcp) does too. Servers for names are those of the command line: what a
// DHCP server says of them counts only where vouchsafe.dhcp_dns wants it.
type network struct {
	lend    bool // by DHCP
	lendDNS bool
	address netip.Prefix
	gateway netip.Addr // invalid for none
	device  string     // empty for the first that is not loopback
	dns     []netip.Addr
}

var errNetwork = errors.New("want CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:none[:DNS0[:DNS1]], with IPv4 addresses, or :::::DEVICE:dhcp[:DNS0[:DNS1]]")

// asksServer says whether a word for AUTOCONF means DHCP.
func asksServer(word string) bool { return word == "dhcp" || word == "on" || word == "any" }

// parseNetwork returns nil where nothing is to be configured.
func parseNetwork(value string) (*network, error) {
	if value == "off" || value == "none" || value == "" {
		return nil, nil
	}
	if asksServer(value) {
		return &network{lend: true}, nil
	}
	fields := strings.Split(value, ":")
	if len(fields) > 9 {
		return nil, errNetwork
	}
	fields = append(fields, make([]string, 9-len(fields))...)
	n := &network{device: fields[5], lend: asksServer(fields[6])}
	if auto := fields[6]; !n.lend && auto != "" && auto != "none" && auto != "off" {
		return nil, fmt.Errorf("autoconfiguration %.16q is not built: %w", auto, errNetwork)
	}
	if n.lend && (fields[0] != "" || fields[2] != "" || fields[3] != "") {
		return nil, errNetwork // who is to be believed, the line or the server?
	}
	if !n.lend {
		if err := n.parseStatic(fields[0], fields[2], fields[3]); err != nil {
			return nil, err
		}
	}
	for _, text := range fields[7:] {
		if text == "" {
			continue
		}
		dns, err := netip.ParseAddr(text)
		if err != nil {
			return nil, errNetwork
		}
		n.dns = append(n.dns, dns)
	}
	return n, nil
}

func (n *network) parseStatic(address, gateway, netmask string) error {
	client, err := netip.ParseAddr(address)
	if err != nil || !client.Is4() {
		return errNetwork
	}
	mask := net.IPMask(net.ParseIP(netmask).To4())
	bits, _ := mask.Size()
	if len(mask) != net.IPv4len || bits == 0 {
		return errNetwork
	}
	n.address = netip.PrefixFrom(client, bits)
	if gateway != "" {
		if n.gateway, err = netip.ParseAddr(gateway); err != nil || !n.gateway.Is4() {
			return errNetwork
		}
	}
	return nil
}

// setUpNetwork brings the loopback interface up, over which workloads reach the
// agent, and the interface of the command line. What it returns, if anything,
// keeps the address as long as its context lives.
func setUpNetwork(ctx context.Context, n *network, log *slog.Logger) (keep func(context.Context), err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, err
	}
	if n == nil {
		return nil, nil
	}
	link, err := n.link()
	if err != nil {
		return nil, err
	}
	if n.lend {
		if keep, err = n.borrow(ctx, link, log); err != nil {
			return nil, fmt.Errorf("%s: %w", link.Attrs().Name, err)
		}
	} else if err := n.configure(link); err != nil {
		return nil, fmt.Errorf("%s: %w", link.Attrs().Name, err)
	}
	log.Info("network", slog.String("device", link.Attrs().Name), slog.String("address", n.address.String()), slog.Bool("lent", n.lend))
	return keep, n.writeResolver()
}

var errNoLink = errors.New("there is no such network interface; its driver may be missing")

func (n *network) link() (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagLoopback == 0 && (n.device == "" || a.Name == n.device) {
			return l, nil
		}
	}
	return nil, errNoLink
}

func (n *network) configure(link netlink.Link) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: n.address.Addr().AsSlice(), Mask: net.CIDRMask(n.address.Bits(), 32)}}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up: %w", err)
	}
	if !n.gateway.IsValid() {
		return nil
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: n.gateway.AsSlice()}
	if n.address.IsSingleIP() { // as clouds lend them: the gateway is on the link all the same
		route.Flags = int(netlink.FLAG_ONLINK)
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route: %w", err)
	}
	return nil
}

// writeResolver binds a file over the image's, which is read-only; a pod's own
// settings are later bound over that.
func (n *network) writeResolver() error {
	if len(n.dns) == 0 {
		return nil
	}
	var text strings.Builder
	for _, d := range n.dns {
		fmt.Fprintf(&text, "nameserver %s\n", d)
	}
	const file = "/run/resolv.conf"
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil { //nolint:gosec // everyone resolves names
		return err
	}
	return bindOver(file, resolvConf)
}
