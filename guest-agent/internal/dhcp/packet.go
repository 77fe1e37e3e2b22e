package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Ports and sizes of what carries messages (RFC 768, RFC 791).
const (
	serverPort = 67
	clientPort = 68
	ipSize     = 20
	udpSize    = 8
)

// link is a packet socket of one interface, which sees what arrives for an
// address that is not set up yet.
type link struct {
	file  *os.File
	index int
}

// Dial opens the interface with an index, for messages to DHCP's clients alone:
// the kernel drops the rest.
func Dial(index int) (Transport, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0) // hears nothing before it is bound
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	program := forClients
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}) //nolint:gosec // nine
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: index})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set a packet socket up: %w", err), unix.Close(fd))
	}
	return &link{os.NewFile(uintptr(fd), "link"), index}, nil
}

func bigEndian(n uint16) uint16 { return n<<8 | n>>8 }

// forClients is the filter "udp dst port 68 and not a fragment", from the IP
// header on (Documentation/networking/filter.rst).
var forClients = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 9},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_UDP, Jf: 6},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 6},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x3fff, Jt: 4},
	{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: 2},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: clientPort, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: ipSize + 40 + udpSize + maxSize},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

func (l *link) Send(message []byte, from netip.Addr) error {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return err
	}
	everybody := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: l.index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	packet := wrap(message, from)
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), packet, 0, everybody) //nolint:gosec // a descriptor
		return !errors.Is(sent, unix.EAGAIN)
	})
	if errors.Is(sent, unix.ENETDOWN) || errors.Is(sent, unix.ENOBUFS) {
		sent = nil // it is sent again
	}
	return errors.Join(err, sent)
}

func (l *link) Receive(until time.Time) ([]byte, error) {
	if err := l.file.SetReadDeadline(until); err != nil {
		return nil, err
	}
	buffer := make([]byte, 2048)
	for {
		n, err := l.file.Read(buffer)
		if errors.Is(err, unix.ENETDOWN) {
			continue // said once, when the link goes down
		}
		if err != nil {
			return nil, err
		}
		if message := unwrap(buffer[:n]); message != nil {
			return message, nil
		}
	}
}

func (l *link) Close() error { return l.file.Close() }

// wrap puts a message into a packet from a client to everybody.
func wrap(message []byte, from netip.Addr) []byte {
	size := ipSize + udpSize + len(message)
	b := make([]byte, ipSize+udpSize, size)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(size)) //nolint:gosec // a message is at most 1472 bytes
	source := from.As4()
	copy(b[12:], source[:])
	copy(b[16:], []byte{255, 255, 255, 255})
	binary.BigEndian.PutUint16(b[10:], ^sum(0, b[:ipSize]))
	udp := b[ipSize:]
	binary.BigEndian.PutUint16(udp, clientPort)
	binary.BigEndian.PutUint16(udp[2:], serverPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpSize+len(message))) //nolint:gosec // as above
	b = append(b, message...)
	check := ^sum(sum(uint16(unix.IPPROTO_UDP+udpSize+len(message)), b[12:ipSize]), b[ipSize:]) //nolint:gosec // as above
	if check == 0 {
		check = ^uint16(0)
	}
	binary.BigEndian.PutUint16(b[ipSize+6:], check)
	return b
}

// sum is the ones' complement sum of RFC 1071.
func sum(start uint16, b []byte) uint16 {
	n := uint32(start)
	for i := 0; i+1 < len(b); i += 2 {
		n += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		n += uint32(b[len(b)-1]) << 8
	}
	for n > 1<<16-1 {
		n = n>>16 + n&(1<<16-1)
	}
	return uint16(n) //nolint:gosec // folded
}

// unwrap returns the message in a packet from a server to a client, nil if there
// is none. Sums are not compared: virtual links leave them to a network card that
// is not there, and they protect from accidents only.
func unwrap(b []byte) []byte {
	if len(b) < ipSize || b[0]>>4 != 4 {
		return nil
	}
	header, size := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < ipSize || size < header+udpSize || size > len(b) || b[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return nil
	}
	udp := b[header:size]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp) != serverPort || binary.BigEndian.Uint16(udp[2:]) != clientPort || length < udpSize || length > len(udp) {
		return nil
	}
	return udp[udpSize:length]
}
