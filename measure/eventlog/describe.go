package eventlog

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Variable is a UEFI_VARIABLE_DATA, what is measured of an EFI variable.
type Variable struct {
	GUID [16]byte // as stored, mixed endian
	Name string
	Data []byte
}

// Variable returns the EFI variable in the event's data, if the type has one.
func (e Event) Variable() (Variable, bool) {
	if !e.Type.isVariable() {
		return Variable{}, false
	}
	r := newReader(e.Data)
	id := r.Take(16)
	chars, size := r.U64(), r.U64()
	if r.Err != nil || chars > uint64(len(r.Buf)) || size > uint64(len(r.Buf)) {
		return Variable{}, false
	}
	name := r.Take(2 * int(chars)) //nolint:gosec // bounded above
	data := r.Take(int(size))      //nolint:gosec // bounded above
	if r.Err != nil || r.At != len(r.Buf) {
		return Variable{}, false
	}
	return Variable{GUID: [16]byte(id), Name: utf16Text(name), Data: data}, true
}

// Text returns what the event's data says in words, for the types whose data
// are words: actions, tagged events, boot loader commands, names of firmware
// parts (kbs-protocol 17). The text is a label and proves nothing.
func (e Event) Text() (string, bool) {
	switch e.Type {
	case PostCode, Action, CompactHash, OmitBootDeviceEvents, EFIAction:
		return string(e.Data), utf8.Valid(e.Data)
	case PlatformConfigFlags:
		if !utf8.Valid(e.Data) {
			return "", true
		}
		return strings.Map(func(c rune) rune {
			if unicode.IsControl(c) {
				return -1
			}
			return c
		}, string(e.Data)), true
	case EventTag:
		_, text, ok := e.tagged()
		return strings.ReplaceAll(string(text), "\x00", ""), ok && utf8.Valid(text)
	case IPL:
		if bytes.HasPrefix(e.Data, []byte{'.', 0}) {
			return utf16Text(e.Data), true
		}
		text, _, _ := bytes.Cut(e.Data, []byte{0})
		return string(text), utf8.Valid(text)
	case EFIHandoffTables2, EFIPlatformFirmwareBlob2:
		if len(e.Data) == 0 || e.Data[0] == 0 || int(e.Data[0]) > len(e.Data)-1 {
			return "", false
		}
		text := e.Data[1:e.Data[0]]
		return string(text), utf8.Valid(text)
	default:
		return "", false
	}
}

// Describe tells in a line what kind of event this is and what its data says.
// It holds printable characters only.
func (e Event) Describe() string {
	about := fmt.Sprintf("%d bytes", len(e.Data))
	if v, ok := e.Variable(); ok {
		about = fmt.Sprintf("%s, %d bytes", v.Name, len(v.Data))
	} else if r, ok := e.Runtime(); ok {
		about = "runtime event " + r.String()
	} else if text, ok := e.Text(); ok {
		about = text
	} else if paths := e.DevicePaths(); paths != nil {
		about = strings.Join(paths, "/")
	} else if e.Type == Separator || len(e.Data) <= 8 {
		about = hex.EncodeToString(e.Data)
	} else if e.Type == SCRTMVersion || e.Type == NoAction || e.Type == NonHostInfo {
		about = e.version()
	}
	return e.Type.String() + ": " + strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, about)
}

// version reads data that is text in one of two encodings, or the name of a
// structure with binary after it.
func (e Event) version() string {
	if e.Type == SCRTMVersion && len(e.Data) > 1 && e.Data[1] == 0 {
		return utf16Text(e.Data)
	}
	text, rest, _ := bytes.Cut(e.Data, []byte{0})
	if !utf8.Valid(text) {
		return fmt.Sprintf("%d bytes", len(e.Data))
	}
	if len(rest) > 0 && len(rest) <= 8 {
		return fmt.Sprintf("%s %x", text, rest)
	}
	return string(text)
}
