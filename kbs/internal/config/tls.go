package config

import (
	"crypto/tls"
	"strings"
)

// Names of the TLS profiles (kbs-protocol 13.1).
const (
	profileOld          = "old"
	profileIntermediate = "intermediate"
	profileModern       = "modern"
	profileCustom       = "custom"
)

// TLSParameters are what the tls_ keys come to. Nil lists mean what Go's TLS
// chooses by itself.
type TLSParameters struct {
	Min, Max uint16
	Suites   []uint16
	Groups   []tls.CurveID
}

// TLS returns the parameters of a valid configuration.
func (h HTTPServer) TLS() TLSParameters {
	var p problems
	return h.tls(&p)
}

func (h HTTPServer) tls(p *problems) TLSParameters {
	t := TLSParameters{Min: tls.VersionTLS12, Max: tls.VersionTLS13}
	switch h.TLSProfile {
	case profileIntermediate, profileCustom:
	case profileModern:
		t.Min = tls.VersionTLS13
	case profileOld:
		p.bad("http_server.tls_profile", "old is TLS 1.0 with broken ciphers, which is not offered; every guest of the field speaks TLS 1.2")
	default:
		p.oneOf("http_server.tls_profile", h.TLSProfile, profileIntermediate, profileModern, profileCustom)
	}
	t.Min = version(p, "http_server.tls_min_version", h.TLSMinVersion, t.Min)
	t.Max = version(p, "http_server.tls_max_version", h.TLSMaxVersion, t.Max)
	if t.Min > t.Max {
		p.bad("http_server.tls_min_version", "is above tls_max_version")
	}
	t.Suites = named(p, "http_server.tls_ciphers", h.TLSCiphers, suites)
	t.Groups = named(p, "http_server.tls_groups", h.TLSGroups, groups)
	return t
}

func version(p *problems, key, text string, absent uint16) uint16 {
	switch text {
	case "":
		return absent
	case "1.2":
		return tls.VersionTLS12
	case "1.3":
		return tls.VersionTLS13
	}
	p.oneOf(key, text, "1.2", "1.3")
	return absent
}

// named reads a list of OpenSSL names. One that begins with a question mark
// may be unknown, as in OpenSSL.
func named[T ~uint16](p *problems, key, text string, known map[string]T) []T {
	if text == "" {
		return nil
	}
	var out []T
	for name := range strings.SplitSeq(text, ":") {
		optional := strings.HasPrefix(name, "?")
		v, ok := known[strings.ToUpper(strings.TrimPrefix(name, "?"))]
		switch {
		case ok:
			out = append(out, v)
		case !optional:
			p.bad(key, "%q is not offered; there are %s", name, sortedNames(known))
		}
	}
	if len(out) == 0 {
		p.bad(key, "nothing is left to choose from")
	}
	return out
}

// suites are those of TLS 1.2 that have forward secrecy and authenticated
// encryption, by their OpenSSL names.
var suites = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// groups by their OpenSSL names, in capitals.
var groups = map[string]tls.CurveID{
	"X25519MLKEM768":     tls.X25519MLKEM768,
	"SECP256R1MLKEM768":  tls.SecP256r1MLKEM768,
	"SECP384R1MLKEM1024": tls.SecP384r1MLKEM1024,
	"X25519":             tls.X25519,
	"SECP256R1":          tls.CurveP256, "PRIME256V1": tls.CurveP256, "P-256": tls.CurveP256,
	"SECP384R1": tls.CurveP384, "P-384": tls.CurveP384,
	"SECP521R1": tls.CurveP521, "P-521": tls.CurveP521,
}
