package dhcp

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// answer is what a server sends that means well.
func answer(kind byte, q message) message {
	return message{
		fromServer: true, id: q.id, mac: q.mac, client: netip.IPv4Unspecified(), yours: netip.MustParseAddr("10.1.2.3"),
		options: map[byte][]byte{
			optKind: {kind}, optServer: {10, 1, 2, 1}, optMask: {255, 255, 255, 0}, optRouter: {10, 1, 2, 1}, optDNS: {10, 1, 2, 1, 9, 9, 9, 9},
			optLease: {0, 0, 14, 16}, // an hour
		},
	}
}

func TestMessages(t *testing.T) {
	m := answer(offer, message{id: 0x01020304, mac: [6]byte{2, 0, 0, 0, 0, 1}})
	m.options[99] = bytes.Repeat([]byte("x"), 600) // three times its code
	m.options[98] = nil
	raw := m.marshal()
	if len(raw) < minSize || raw[240] != optKind {
		t.Errorf("%d bytes, first option %d", len(raw), raw[240])
	}
	got, err := parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if m.options[98] = got.options[98]; len(m.options[98]) != 0 || !reflect.DeepEqual(got, m) {
		t.Errorf("%+v\n%+v", got, m)
	}
	for name, change := range map[string]func([]byte) []byte{
		"empty":           func([]byte) []byte { return nil },
		"no options":      func(b []byte) []byte { return b[:fixedSize] },
		"no end":          func(b []byte) []byte { return b[:250] },
		"token ring":      func(b []byte) []byte { b[1] = 6; return b },
		"long address":    func(b []byte) []byte { b[2] = 255; return b },
		"another magic":   func(b []byte) []byte { b[fixedSize] = 0; return b },
		"third operation": func(b []byte) []byte { b[0] = 3; return b },
		"huge":            func(b []byte) []byte { return append(b, make([]byte, maxSize)...) },
		"length of 255":   func(b []byte) []byte { return append(b[:240:240], 53, 255, 1, 255) },
		"cut in a code":   func(b []byte) []byte { return append(b[:240:240], 53) },
	} {
		if m, err := parse(change(bytes.Clone(raw))); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestLease(t *testing.T) {
	begin := time.Unix(1, 0)
	l, err := answer(ack, message{}).lease(begin)
	want := Lease{
		Address: netip.MustParsePrefix("10.1.2.3/24"), Gateway: netip.MustParseAddr("10.1.2.1"), Server: netip.MustParseAddr("10.1.2.1"),
		DNS: []netip.Addr{netip.MustParseAddr("10.1.2.1"), netip.MustParseAddr("9.9.9.9")}, Begin: begin, Renew: 30 * time.Minute, Expire: time.Hour,
	}
	if err != nil || !reflect.DeepEqual(l, want) {
		t.Fatalf("%+v, %v", l, err)
	}
	good := map[string]struct {
		option byte
		raw    string
		check  func(Lease) bool
	}{
		"no router":               {optRouter, "", func(l Lease) bool { return !l.Gateway.IsValid() }},
		"for ever":                {optLease, "\xff\xff\xff\xff", func(l Lease) bool { return l.Expire == 0 && l.Renew == 0 }},
		"a time to renew":         {optRenew, "\x00\x00\x00\x78", func(l Lease) bool { return l.Renew == 2*time.Minute }},
		"renewed when it is over": {optRenew, "\xff\x00\x00\x00", func(l Lease) bool { return l.Renew == 30*time.Minute }},
		"renewed all the time":    {optRenew, "\x00\x00\x00\x00", func(l Lease) bool { return l.Renew == 30*time.Minute }},
		"renewed in words":        {optRenew, "soon!", func(l Lease) bool { return l.Renew == 30*time.Minute }},
		"names from ourselves":    {optDNS, "\x7f\x00\x00\x01", func(l Lease) bool { return len(l.DNS) == 0 }},
		"names from half a one":   {optDNS, "\x0a\x01", func(l Lease) bool { return len(l.DNS) == 0 }},
		"names from many":         {optDNS, strings.Repeat("\x0a\x01\x02\x01", 60), func(l Lease) bool { return len(l.DNS) == maxDNS }},
		"one address alone":       {optMask, "\xff\xff\xff\xff", func(l Lease) bool { return l.Address.Bits() == 32 && l.Gateway.IsValid() }},
		"a network of two":        {optMask, "\xff\xff\xff\xfe", func(l Lease) bool { return l.Address.Bits() == 31 }},
	}
	for name, c := range good {
		m := answer(ack, message{})
		if m.options[c.option] = []byte(c.raw); name == "a network of two" {
			delete(m.options, optRouter)
		}
		if l, err := m.lease(begin); err != nil || !c.check(l) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	bad := map[string]struct {
		option byte
		raw    string
	}{
		"no server": {optServer, ""}, "two servers": {optServer, "\x0a\x01\x02\x01\x0a\x01\x02\x02"}, "a server of all": {optServer, "\xff\xff\xff\xff"},
		"no mask": {optMask, ""}, "a mask of nothing": {optMask, "\x00\x00\x00\x00"}, "a mask with holes": {optMask, "\xff\x00\xff\x00"}, "half a mask": {optMask, "\xff\xff"},
		"router elsewhere": {optRouter, "\x0a\x01\x03\x01"}, "router of all": {optRouter, "\xff\xff\xff\xff"}, "ourselves as router": {optRouter, "\x0a\x01\x02\x03"},
		"no time": {optLease, ""}, "a second": {optLease, "\x00\x00\x00\x01"}, "no time at all": {optLease, "\x00\x00\x00\x00"},
	}
	for name, c := range bad {
		m := answer(ack, message{})
		m.options[c.option] = []byte(c.raw)
		if l, err := m.lease(begin); err == nil {
			t.Errorf("%s: %+v", name, l)
		}
	}
	for _, yours := range []string{"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.1.2.0", "10.1.2.255", "0.1.2.3", "240.0.0.1"} {
		m := answer(ack, message{})
		m.yours = netip.MustParseAddr(yours)
		delete(m.options, optRouter)
		if l, err := m.lease(begin); err == nil {
			t.Errorf("%s: %+v", yours, l)
		}
	}
}

// What is understood is written as it was understood, and a lease that is taken
// is one that a machine can use.
func FuzzParse(f *testing.F) {
	f.Add(answer(offer, message{}).marshal())
	f.Add(append(answer(ack, message{}).marshal()[:240], 53, 255, 1))
	f.Add(append(answer(nak, message{}).marshal()[:240], 1, 0, 255))
	f.Add(make([]byte, 240))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parse(raw)
		if err != nil {
			return
		}
		written := m.marshal()
		if len(written) <= maxSize { // repeated lengths may be longer than what came
			again, err := parse(written)
			if err != nil || len(again.options) != len(m.options) || again.yours != m.yours || again.id != m.id {
				t.Errorf("%+v became %+v, %v", m, again, err)
			}
			for code, text := range m.options {
				if !bytes.Equal(text, again.options[code]) {
					t.Errorf("option %d: %x became %x", code, text, again.options[code])
				}
			}
		}
		l, err := m.lease(time.Unix(0, 0))
		if err == nil && (!unicast(l.Address.Addr()) || l.Address.Bits() < 1 || l.Renew < 0 || l.Renew > l.Expire || l.Gateway.IsValid() && !unicast(l.Gateway)) {
			t.Errorf("a lease of %+v", l)
		}
	})
}

// No packet, however it lies about its sizes, is more than it is.
func FuzzUnwrap(f *testing.F) {
	packet := wrap([]byte("hello"), netip.IPv4Unspecified())
	f.Add(packet)
	back := bytes.Clone(packet)
	back[ipSize+1], back[ipSize+3] = serverPort, clientPort
	f.Add(back)
	long := bytes.Clone(back)
	long[0], long[3], long[ipSize+5] = 0x4f, 255, 255
	f.Add(long)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m := unwrap(b); len(m) > len(b)-ipSize-udpSize && m != nil {
			t.Errorf("%d bytes of %d", len(m), len(b))
		}
	})
}

func TestPackets(t *testing.T) {
	packet := wrap([]byte("hello"), netip.MustParseAddr("10.0.0.1"))
	if s := sum(0, packet[:ipSize]); s != 0xffff {
		t.Errorf("the header's sum is %x", s)
	}
	if unwrap(packet) != nil {
		t.Error("a question is taken for an answer")
	}
	packet[ipSize+1], packet[ipSize+3] = serverPort, clientPort
	if got := unwrap(packet); string(got) != "hello" {
		t.Errorf("%q", got)
	}
	packet[6] = 0x20
	if unwrap(packet) != nil {
		t.Error("a fragment is taken")
	}
}
