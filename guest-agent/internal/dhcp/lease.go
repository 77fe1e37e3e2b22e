package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"time"
)

// Lease is what a server lends to this machine.
type Lease struct {
	Address netip.Prefix
	Gateway netip.Addr // invalid for none; outside of Address's network only if that is one address
	DNS     []netip.Addr
	Server  netip.Addr

	// Renew and Expire are times after Begin; both are 0 for a lease without end.
	Begin         time.Time
	Renew, Expire time.Duration
}

const (
	// minLease is the shortest lease that is taken: who lends for less can keep a
	// guest busy.
	minLease = time.Minute
	forever  = 1<<32 - 1 // seconds
	maxDNS   = 3         // what resolvers read
)

// lease judges an offer or an acknowledgement. begin is when it was asked for.
func (m message) lease(begin time.Time) (Lease, error) {
	l := Lease{Begin: begin}
	servers := m.addresses(optServer)
	if len(servers) != 1 || !unicast(servers[0]) {
		return l, errors.New("a server without an address")
	}
	l.Server = servers[0]
	raw := m.options[optMask]
	if len(raw) != 4 {
		return l, errors.New("no mask of the network")
	}
	mask := binary.BigEndian.Uint32(raw)
	width := bits.LeadingZeros32(^mask)
	if mask != ^uint32(0)<<(32-width) || width == 0 {
		return l, errors.New("a mask with holes, or of everything")
	}
	l.Address = netip.PrefixFrom(m.yours, width)
	if !unicast(m.yours) || width < 31 && (m.yours == l.Address.Masked().Addr() || m.yours == last(l.Address)) {
		return l, fmt.Errorf("%s is no address of a machine", l.Address)
	}
	if routers := m.addresses(optRouter); len(routers) > 0 {
		l.Gateway = routers[0]
		if !unicast(l.Gateway) || l.Gateway == m.yours || width < 32 && !l.Address.Contains(l.Gateway) {
			return l, fmt.Errorf("the router %s is not on the network %s", l.Gateway, l.Address)
		}
	}
	for _, a := range m.addresses(optDNS) {
		if unicast(a) && len(l.DNS) < maxDNS {
			l.DNS = append(l.DNS, a)
		}
	}
	return l, l.times(m)
}

// times reads for how long. The server's word for the time of renewal counts if
// it lies within the lease (RFC 2131, section 4.4.5).
func (l *Lease) times(m message) error {
	n, ok := m.seconds(optLease)
	if !ok {
		return errors.New("no time of the lease")
	}
	if n == forever {
		return nil
	}
	l.Expire = time.Duration(n) * time.Second
	if l.Expire < minLease {
		return fmt.Errorf("a lease of %v: at least %v are taken", l.Expire, minLease)
	}
	l.Renew = l.Expire / 2
	if n, ok := m.seconds(optRenew); ok {
		if at := time.Duration(n) * time.Second; at >= minLease/4 && at < l.Expire {
			l.Renew = at
		}
	}
	return nil
}

// unicast addresses can be those of another machine.
func unicast(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a.As4()[0] != 0 && a.As4()[0] < 240
}

// last is the address that everybody on a network hears.
func last(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(a[:]) | ^uint32(0)>>p.Bits()
	binary.BigEndian.PutUint32(a[:], n)
	return netip.AddrFrom4(a)
}
