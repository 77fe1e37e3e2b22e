package tokenkey

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	wire "github.com/vouchsafe-cc/vouchsafe/kbs/api/tokenkey"
)

const (
	scheme   = "pkcs11:"
	maxURI   = 4096 // bytes
	maxLabel = 255
)

// A URI names one key of one token (RFC 7512).
type URI struct {
	Which  wire.Which
	Object string // label; empty: any
	ID     []byte // CKA_ID; nil: any
	Module string // absolute path of the library
	PIN    string // absolute path of a file with the PIN; empty: it comes from elsewhere
}

// IsURI reports whether a name is meant as one, and not as that of a file.
func IsURI(s string) bool { return strings.HasPrefix(s, scheme) }

// ParseURI reads a URI. Every attribute narrows what is meant, so one that is not
// understood here is refused, and never passed over (section 2.3).
func ParseURI(s string) (URI, error) {
	var u URI
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok || len(s) > maxURI {
		return u, fmt.Errorf("not a PKCS#11 URI of at most %d bytes", maxURI)
	}
	path, query, _ := strings.Cut(rest, "?")
	seen := map[string]bool{}
	for _, part := range []struct {
		text, between string
		take          func(name, value string) error
	}{{path, ";", u.path}, {query, "&", u.query}} {
		if part.text == "" {
			continue
		}
		for attribute := range strings.SplitSeq(part.text, part.between) {
			name, raw, ok := strings.Cut(attribute, "=")
			value, err := url.PathUnescape(raw)
			if !ok || err != nil || seen[name] {
				return u, fmt.Errorf("PKCS#11 URI: attribute %.40q is not well formed, or there twice", name)
			}
			seen[name] = true
			if err := part.take(name, value); err != nil {
				return u, fmt.Errorf("PKCS#11 URI: %w", err)
			}
		}
	}
	return u, u.check()
}

func (u *URI) path(name, value string) error {
	switch name {
	case "token":
		u.Which.Token = value
	case "serial":
		u.Which.Serial = value
	case "manufacturer":
		u.Which.Manufacturer = value
	case "model":
		u.Which.Model = value
	case "slot-id":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return fmt.Errorf("slot-id %.40q is no number", value)
		}
		slot := uint(n)
		u.Which.Slot = &slot
	case "object":
		u.Object = value
	case "id":
		u.ID = []byte(value)
	case "type":
		if value != "private" && value != "public" {
			return fmt.Errorf("an object of type %.40q: a key pair is wanted", value)
		}
	default:
		return fmt.Errorf("%.40q is not supported: token, serial, manufacturer, model, slot-id, object, id and type are", name)
	}
	return nil
}

func (u *URI) query(name, value string) error {
	switch name {
	case "module-path":
		u.Module = value
	case "pin-source":
		u.PIN = strings.TrimPrefix(value, "file:")
		u.PIN = strings.TrimPrefix(u.PIN, "//") // file:///path, which has no host
		if !filepath.IsAbs(u.PIN) {
			return errors.New("pin-source: want file: and an absolute path")
		}
	case "pin-value":
		return errors.New("pin-value: others see what is in a command; want pin-source=file:/path")
	default:
		return fmt.Errorf("%.40q is not supported: module-path and pin-source are", name)
	}
	return nil
}

func (u *URI) check() error {
	switch {
	case u.Which == (wire.Which{}):
		return errors.New("PKCS#11 URI: it names no token: token, serial, manufacturer, model or slot-id is needed")
	case len(u.Which.Token) > maxLabel || len(u.Which.Serial) > maxLabel || len(u.Which.Manufacturer) > maxLabel || len(u.Which.Model) > maxLabel:
		return errors.New("PKCS#11 URI: what names the token is too long")
	case u.Object == "" && len(u.ID) == 0:
		return errors.New("PKCS#11 URI: it names no key: object or id is needed")
	case len(u.Object) > maxLabel || len(u.ID) > maxLabel:
		return errors.New("PKCS#11 URI: object or id is too long")
	case !filepath.IsAbs(u.Module):
		return errors.New("PKCS#11 URI: module-path is needed, the absolute path of the token's library")
	}
	return nil
}

// String writes the URI as [ParseURI] reads it, without where the PIN is.
func (u URI) String() string {
	slot := ""
	if u.Which.Slot != nil {
		slot = strconv.FormatUint(uint64(*u.Which.Slot), 10)
	}
	var parts []string
	for _, p := range []struct{ name, value string }{
		{"token", u.Which.Token}, {"serial", u.Which.Serial}, {"manufacturer", u.Which.Manufacturer}, {"model", u.Which.Model}, {"slot-id", slot},
		{"object", u.Object}, {"id", string(u.ID)},
	} {
		if p.value != "" {
			parts = append(parts, p.name+"="+escape(p.value))
		}
	}
	return scheme + strings.Join(parts, ";") + "?module-path=" + escape(u.Module)
}

// escape keeps what all parts of the grammar allow, and writes the rest as
// percent and two digits.
func escape(s string) string {
	const plain = "-._~/:"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
