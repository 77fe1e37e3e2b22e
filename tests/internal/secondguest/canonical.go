package secondguest

import (
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// canonical writes the few shapes that are hashed in the form of RFC 8785:
// texts, and objects of them.
func canonical(v any) []byte {
	switch v := v.(type) {
	case string:
		return quote(v)
	case map[string]string:
		return object(v, quote)
	case map[string]any:
		return object(v, canonical)
	}
	panic(fmt.Sprintf("secondguest: %T is never hashed", v))
}

func object[T any](m map[string]T, write func(T) []byte) []byte {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b))) })
	out := []byte{'{'}
	for i, name := range names {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(append(out, quote(name)...), ':'), write(m[name])...)
	}
	return append(out, '}')
}

// quote escapes what section 3.2.2.2 of RFC 8785 says, and nothing else.
func quote(s string) []byte {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r >= ' ':
			b.WriteRune(r)
		default:
			if i := strings.IndexRune("\b\t\n\f\r", r); i >= 0 {
				b.WriteByte('\\')
				b.WriteByte("btnfr"[i])
			} else {
				fmt.Fprintf(&b, `\u%04x`, r)
			}
		}
	}
	b.WriteByte('"')
	return []byte(b.String())
}

func sum(hash string, text []byte) ([]byte, error) {
	switch hash {
	case "sha256":
		s := sha256.Sum256(text)
		return s[:], nil
	case "sha384":
		s := sha512.Sum384(text)
		return s[:], nil
	case "sha512":
		s := sha512.Sum512(text)
		return s[:], nil
	}
	return nil, fmt.Errorf("the broker selected the hash %q, which was not offered", hash)
}
