// Package qgs asks Intel's quote generation service on the host to turn a TD's
// report into a quote. The TDX driver does the same on behalf of configfs-tsm,
// but it looks only once a second whether the host is done; over vsock a quote
// costs milliseconds.
//
// The service is the host's and nothing it says is believed: a quote counts
// because it verifies. Messages are those of Intel's qgs_msg_lib, version 1.
package qgs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits in bytes.
const (
	ReportSize = 1024 // of a TDREPORT
	MaxQuote   = 64 << 10
	maxMessage = MaxQuote + 4<<10
)

// A message is a header (u16 major and minor version, u32 type, u32 size of the
// whole message, u32 error code), two u32 lengths, and what they measure. All
// of it is little endian.
const (
	headerSize  = 16
	fixedSize   = headerSize + 8
	typeRequest = 0 // GET_QUOTE_REQ
	typeAnswer  = 1 // GET_QUOTE_RESP
	major       = 1
)

// ErrMessage is wrapped by refusals of what the service sent.
var ErrMessage = errors.New("malformed answer of the quote service")

// ServiceError is what the service answers when it has no quote.
type ServiceError uint32

// Error names the code as qgs_msg_lib does.
func (e ServiceError) Error() string {
	names := map[ServiceError]string{
		0x12001: "unexpected error", 0x12002: "out of memory", 0x12003: "invalid parameter", 0x12004: "invalid version",
		0x12005: "invalid type", 0x12006: "invalid size", 0x12007: "invalid code",
	}
	if name, ok := names[e]; ok {
		return "the quote service answers: " + name
	}
	return fmt.Sprintf("the quote service answers with error %#x", uint32(e))
}

// request asks for a quote of a report, by whichever of its keys the service
// likes.
func request(report []byte) ([]byte, error) {
	if len(report) != ReportSize {
		return nil, fmt.Errorf("a TDREPORT has %d bytes, got %d", ReportSize, len(report))
	}
	return message(typeRequest, 0, report, nil), nil
}

// message puts a message together. The first length is that of the report in a
// request, and of the selected key's id in an answer.
func message(kind, code uint32, first, second []byte) []byte {
	size := fixedSize + len(first) + len(second)
	b := make([]byte, 0, size)
	b = binary.LittleEndian.AppendUint16(b, major)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(size)) //nolint:gosec // small
	b = binary.LittleEndian.AppendUint32(b, code)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(first)))  //nolint:gosec // small
	b = binary.LittleEndian.AppendUint32(b, uint32(len(second))) //nolint:gosec // small
	return append(append(b, first...), second...)
}

// parseAnswer returns the quote of an answer. An answer that says why there is
// none is a [ServiceError]; it may end after its header.
func parseAnswer(raw []byte) ([]byte, error) {
	if len(raw) < headerSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrMessage, len(raw))
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(raw[at:]) }
	if v := binary.LittleEndian.Uint16(raw); v != major {
		return nil, fmt.Errorf("%w: version %d", ErrMessage, v)
	}
	if u32(4) != typeAnswer || uint64(u32(8)) != uint64(len(raw)) {
		return nil, fmt.Errorf("%w: type %d of %d bytes in a message of %d", ErrMessage, u32(4), u32(8), len(raw))
	}
	if code := u32(12); code != 0 {
		return nil, ServiceError(code)
	}
	if len(raw) < fixedSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrMessage, len(raw))
	}
	id, quote := uint64(u32(16)), uint64(u32(20))
	if fixedSize+id+quote != uint64(len(raw)) || quote == 0 || quote > MaxQuote {
		return nil, fmt.Errorf("%w: an id of %d and a quote of %d bytes in a message of %d", ErrMessage, id, quote, len(raw))
	}
	return raw[fixedSize+id:], nil
}
