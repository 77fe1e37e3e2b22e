package trust

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
)

// A distinguishedName is a trusted identity of the Notary Project: parts of a
// certificate's subject, all of which must be there.
type distinguishedName struct {
	text  string // "x509.subject: C=..."
	parts []namePart
}

type namePart struct{ oid, value string }

// nameParts are the attributes that an identity may name (RFC 4514, section 3,
// and the Notary Project's trust policy), by object identifier.
var nameParts = map[string]string{
	"CN": "2.5.4.3", "SERIALNUMBER": "2.5.4.5", "C": "2.5.4.6", "L": "2.5.4.7", "ST": "2.5.4.8", "S": "2.5.4.8",
	"STREET": "2.5.4.9", "O": "2.5.4.10", "OU": "2.5.4.11", "POSTALCODE": "2.5.4.17",
}

// parseIdentityName reads "x509.subject: C=US, ST=WA, O=acme". Country, state
// and organisation are needed: less would match more than anybody means.
func parseIdentityName(text string) (distinguishedName, error) {
	d := distinguishedName{text: text}
	kind, rest, ok := strings.Cut(text, ":")
	if !ok || strings.TrimSpace(kind) != "x509.subject" {
		return d, fmt.Errorf("trusted identity %.120q: want x509.subject: C=COUNTRY, ST=STATE, O=ORGANISATION", text)
	}
	for _, part := range splitEscaped(rest) {
		name, value, ok := strings.Cut(part, "=")
		oid := nameParts[strings.ToUpper(strings.TrimSpace(name))]
		value = strings.TrimSpace(unescape(value))
		if !ok || oid == "" || value == "" {
			return d, fmt.Errorf("trusted identity %.120q: %.60q is no part of a name", text, part)
		}
		if slices.ContainsFunc(d.parts, func(p namePart) bool { return p.oid == oid }) {
			return d, fmt.Errorf("trusted identity %.120q names %s twice", text, name)
		}
		d.parts = append(d.parts, namePart{oid, value})
	}
	for _, needed := range []string{"C", "ST", "O"} {
		if !slices.ContainsFunc(d.parts, func(p namePart) bool { return p.oid == nameParts[needed] }) {
			return d, fmt.Errorf("trusted identity %.120q: %s is missing", text, needed)
		}
	}
	return d, nil
}

// splitEscaped splits at commas that no backslash stands before.
func splitEscaped(s string) []string {
	var parts []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case ',':
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// matches says whether the certificate's subject has every part. An attribute
// that the subject has twice matches nothing: which one counts?
func (d distinguishedName) matches(c *x509.Certificate) bool {
	for _, p := range d.parts {
		var seen []string
		for _, a := range c.Subject.Names {
			if a.Type.String() == p.oid {
				seen = append(seen, fmt.Sprint(a.Value))
			}
		}
		if len(seen) != 1 || seen[0] != p.value {
			return false
		}
	}
	return true
}
