package audit

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// appendCanonical appends the canonical JSON (RFC 8785) of an entry whose
// strings are valid UTF-8 and whose index is below 2^53. It is what jcs.Marshal
// writes, at a fraction of the cost: the members are known, and so is their
// order.
func appendCanonical(b []byte, e *api.AuditEntry) []byte {
	b = append(b, '{')
	if e.Code != "" {
		b = append(appendString(append(b, `"code":`...), e.Code), ',')
	}
	b = append(appendString(append(b, `"decision":`...), e.Decision), ',')
	if len(e.Details) > 0 {
		b = append(appendDetails(append(b, `"details":`...), e.Details), ',')
	}
	b = strconv.AppendInt(append(b, `"index":`...), e.Index, 10)
	b = appendString(append(b, `,"kind":`...), string(e.Kind))
	for _, m := range [...]struct{ name, value string }{
		{`,"object":`, e.Object}, {`,"subject":`, e.Subject}, {`,"tenant":`, e.Tenant}, {`,"ticket":`, e.Ticket},
	} {
		if m.value != "" {
			b = appendString(append(b, m.name...), m.value)
		}
	}
	b = e.Time.AppendFormat(append(b, `,"time":"`...), time.RFC3339Nano)
	return append(b, '"', '}')
}

func appendDetails(b []byte, details map[string]string) []byte {
	var few [8]string // most entries have no more, and then nothing is allocated
	names := few[:0]
	for k := range details {
		names = append(names, k)
	}
	slices.SortFunc(names, compareUTF16)
	b = append(b, '{')
	for i, k := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(appendString(b, k), ':'), details[k])
	}
	return append(b, '}')
}

// compareUTF16 compares as RFC 8785 section 3.2.3 wants it: by UTF-16 code
// units. Among characters that differs from the order of code points only
// where a surrogate meets U+E000 to U+FFFF.
func compareUTF16(x, y string) int {
	for x != "" && y != "" {
		r, n := utf8.DecodeRuneInString(x)
		s, m := utf8.DecodeRuneInString(y)
		if r != s {
			if r >= 0xE000 && s >= 0xE000 && (r > 0xFFFF) != (s > 0xFFFF) {
				r, s = s, r
			}
			return int(r) - int(s)
		}
		x, y = x[n:], y[m:]
	}
	return len(x) - len(y)
}

const lowerHex = "0123456789abcdef"

// appendString writes a string with the escapes of RFC 8785 section 3.2.2.2
// and no others.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch at := strings.IndexByte("\"\\\b\t\n\f\r", c); {
		case at >= 0:
			b = append(b, '\\', `"\btnfr`[at])
		default:
			b = append(b, '\\', 'u', '0', '0', lowerHex[c>>4], lowerHex[c&15])
		}
	}
	return append(append(b, s[from:]...), '"')
}
