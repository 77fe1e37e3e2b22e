package dhcp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
)

// Kinds of messages (RFC 2132, section 9.6).
const (
	discover = 1
	offer    = 2
	request  = 3
	ack      = 5
	nak      = 6
)

// Options that are read or written (RFC 2132).
const (
	optMask       = 1
	optRouter     = 3
	optDNS        = 6
	optRequested  = 50
	optLease      = 51
	optKind       = 53
	optServer     = 54
	optParameters = 55
	optMaxSize    = 57
	optRenew      = 58
	optRebind     = 59
)

// Sizes in bytes (RFC 2131, section 2).
const (
	fixedSize = 236
	minSize   = 300 // what old relays want at least
	maxSize   = 1472
)

var magic = [4]byte{99, 130, 83, 99}

// message is one of RFC 2131, section 2, as far as this client uses it: for
// Ethernet, without what lies in the fields sname and file.
type message struct {
	fromServer bool
	id         uint32     // of the exchange
	secs       uint16     // since the client began
	broadcast  bool       // answers come to everybody
	client     netip.Addr // ciaddr: what the client has; 0.0.0.0 for none
	yours      netip.Addr // yiaddr: what it is to have
	mac        [6]byte
	options    map[byte][]byte
}

func (m message) kind() byte {
	if k := m.options[optKind]; len(k) == 1 {
		return k[0]
	}
	return 0
}

// marshal is the inverse of [parse]. Options longer than 255 bytes are split
// (RFC 3396).
func (m message) marshal() []byte {
	b := make([]byte, fixedSize, minSize)
	b[0], b[1], b[2] = 1, 1, 6
	if m.fromServer {
		b[0] = 2
	}
	binary.BigEndian.PutUint32(b[4:], m.id)
	binary.BigEndian.PutUint16(b[8:], m.secs)
	if m.broadcast {
		b[10] = 0x80
	}
	put := func(at int, a netip.Addr) {
		if a.Is4() {
			four := a.As4()
			copy(b[at:], four[:])
		}
	}
	put(12, m.client)
	put(16, m.yours)
	copy(b[28:], m.mac[:])
	b = append(b, magic[:]...)
	var codes []byte
	for code := range m.options {
		codes = append(codes, code)
	}
	slices.SortFunc(codes, func(x, y byte) int { return order(x) - order(y) })
	for _, code := range codes {
		rest := m.options[code]
		for first := true; first || len(rest) > 0; first = false {
			n := min(len(rest), 255)
			b = append(b, code, byte(n))
			b = append(b, rest[:n]...)
			rest = rest[n:]
		}
	}
	b = append(b, 255)
	for len(b) < minSize {
		b = append(b, 0)
	}
	return b
}

// order puts the kind of message first, where people who read packets look.
func order(code byte) int {
	if code == optKind {
		return 0
	}
	return int(code)
}

var errMessage = errors.New("no DHCP message for Ethernet")

// parse reads what came from anybody on the link. An option that occurs twice is
// the one text of both (RFC 3396).
func parse(b []byte) (message, error) {
	if len(b) < fixedSize+len(magic) || len(b) > maxSize || b[0] < 1 || b[0] > 2 || b[1] != 1 || b[2] != 6 ||
		[4]byte(b[fixedSize:fixedSize+4]) != magic {
		return message{}, errMessage
	}
	m := message{
		fromServer: b[0] == 2, id: binary.BigEndian.Uint32(b[4:]), secs: binary.BigEndian.Uint16(b[8:]), broadcast: b[10]&0x80 != 0,
		client: netip.AddrFrom4([4]byte(b[12:16])), yours: netip.AddrFrom4([4]byte(b[16:20])), mac: [6]byte(b[28:34]), options: map[byte][]byte{},
	}
	for rest := b[fixedSize+len(magic):]; len(rest) > 0; {
		code := rest[0]
		if code == 255 {
			return m, nil
		}
		if code == 0 {
			rest = rest[1:]
			continue
		}
		if len(rest) < 2 || len(rest)-2 < int(rest[1]) {
			return message{}, errMessage
		}
		end := 2 + int(rest[1])
		m.options[code] = append(m.options[code], rest[2:end]...)
		rest = rest[end:]
	}
	return message{}, errMessage // without its end it is cut off
}

// addresses reads an option that is a list of them, nil if it is not.
func (m message) addresses(code byte) (list []netip.Addr) {
	raw := m.options[code]
	if len(raw)%4 != 0 {
		return nil
	}
	for four := range slices.Chunk(raw, 4) {
		list = append(list, netip.AddrFrom4([4]byte(four)))
	}
	return list
}

// seconds reads an option that is a time.
func (m message) seconds(code byte) (n uint32, ok bool) {
	raw := m.options[code]
	if len(raw) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(raw), true
}
