package crypt

import (
	"fmt"
	"strings"
)

// A Scheme says how a key packet is wrapped: it is what follows
// "org.opencontainers.image.enc.keys." in the name of the annotation that holds
// the packet (ocicrypt, spec.md; guest-protocol 11.1).
type Scheme string

// The schemes that this package reads and writes. Of key providers, every name
// is read, and the field's name is written: its guests ignore all others.
const (
	SchemeJWE      Scheme = "jwe"
	SchemePKCS7    Scheme = "pkcs7"
	SchemePKCS11   Scheme = "pkcs11"
	SchemeProvider Scheme = providerPrefix + "attestation-agent"

	schemePGP Scheme = "pgp" // known, and not opened
)

const providerPrefix = "provider."

// IsProvider reports whether the packet is one of a key provider, which
// [ParsePacket] reads.
func (s Scheme) IsProvider() bool { return strings.HasPrefix(string(s), providerPrefix) }

// A WrappedKey is a layer's private options as one reader can open them.
type WrappedKey struct {
	Scheme Scheme
	Packet []byte // not base64 any more
}

// Authentic reports an error unless the wrap itself notices every change of the
// packet. Where nobody signed the packet, only such a wrap may be opened: what a
// changed one does to a guest would tell, question by question, what is in it.
func (w WrappedKey) Authentic() error {
	switch {
	case w.Scheme == SchemeJWE, w.Scheme == SchemePKCS7, w.Scheme == SchemePKCS11: // as far as they are read
		return nil
	case w.Scheme.IsProvider():
		p, err := ParsePacket(w.Packet)
		if err != nil {
			return err
		}
		if p.WrapType != wrapGCM {
			return fmt.Errorf("key wrap %s does not authenticate what it wraps", p.WrapType)
		}
		return nil
	}
	return fmt.Errorf("key wrap %.40q does not authenticate what it wraps", w.Scheme)
}

// Reader says who can open the packet, as far as it tells: the key ID of a key
// provider's, else the scheme.
func (w WrappedKey) Reader() (string, error) {
	if !w.Scheme.IsProvider() {
		return string(w.Scheme), nil
	}
	p, err := ParsePacket(w.Packet)
	if err != nil {
		return "", err
	}
	return p.KID, nil
}
