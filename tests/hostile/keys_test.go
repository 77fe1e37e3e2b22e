package hostile

import (
	"encoding/base64"
	"errors"
	"math/big"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/secondguest"
)

type jwk = map[string]string

// spoiled are public keys to which nothing must be encrypted.
func (s *stage) spoiled() map[string]jwk {
	s.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	from := func(kind string, members jwk) jwk {
		k, err := secondguest.NewKey(kind)
		if err != nil {
			s.Fatal(err)
		}
		public := k.Public()
		for name, value := range members {
			public[name] = value
		}
		return public
	}
	zeros, ones := make([]byte, 32), []byte(strings.Repeat("\xff", 32))
	modulus := func(bits uint, add int64) string {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return b64(n.Add(n, big.NewInt(add)).Bytes())
	}
	ec, rsa, kem := secondguest.P256, secondguest.RSA, secondguest.MLKEM
	return map[string]jwk{
		"off the curve":             from(ec, jwk{"y": b64(ones[:31]) + "AA"}),
		"another point's y":         from(ec, jwk{"y": from(ec, nil)["y"]}),
		"identity":                  from(ec, jwk{"x": b64(zeros), "y": b64(zeros)}),
		"empty point":               from(ec, jwk{"x": "", "y": ""}),
		"beyond the field":          from(ec, jwk{"x": b64(ones), "y": b64(ones)}),
		"short coordinate":          from(ec, jwk{"x": b64(ones[:8])}),
		"long coordinate":           from(ec, jwk{"x": b64([]byte(strings.Repeat("\x01", 5000)))}),
		"of another curve":          from(secondguest.P384, jwk{"crv": "P-256"}),
		"unknown curve":             from(ec, jwk{"crv": "secp256k1"}),
		"wrong alphabet":            from(ec, jwk{"x": "++++" + strings.Repeat("/", 39)}),
		"unknown algorithm":         from(ec, jwk{"alg": "dir"}),
		"unknown key type":          from(ec, jwk{"kty": "oct", "k": "AAAA"}),
		"RSA of 512 bits":           from(rsa, jwk{"n": modulus(512, 1)}),
		"RSA of 1024 bits":          from(rsa, jwk{"n": modulus(1024, 1)}),
		"RSA of 100,000 bits":       from(rsa, jwk{"n": modulus(100_000, 1)}),
		"even modulus":              from(rsa, jwk{"n": modulus(2048, 2)}),
		"modulus 0":                 from(rsa, jwk{"n": "AA"}),
		"exponent 0":                from(rsa, jwk{"e": "AA"}),
		"exponent 1":                from(rsa, jwk{"e": "AQ"}),
		"even exponent":             from(rsa, jwk{"e": "Ag"}),
		"exponent of 4,000 bits":    from(rsa, jwk{"e": modulus(4000, 1)}),
		"RSA key of another's type": from(rsa, jwk{"kty": "EC"}),
		"ML-KEM, a byte short":      from(kem, jwk{"pub": b64(make([]byte, 1183))}),
		"ML-KEM, a byte long":       from(kem, jwk{"pub": b64(make([]byte, 1185))}),
		"ML-KEM, not reduced":       from(kem, jwk{"pub": b64([]byte(strings.Repeat("\xff", 1184)))}),
		"ML-KEM, empty":             from(kem, jwk{"pub": ""}),
		"no members":                {},
	}
}

// keys sends each spoiled key with evidence that is good and bound to it. It
// is refused when it comes, or at the latest when something is to be encrypted.
func (s *stage) keys() {
	for what, public := range s.spoiled() {
		g := s.guest()
		g.Key.Replace(public)
		token, err := g.Handshake(s.Context())
		if err == nil {
			_, err = g.Resource(s.Context(), good, token)
		}
		var refusal *secondguest.Error
		if !errors.As(err, &refusal) {
			s.Errorf("%s: %v", what, err)
			continue
		}
		s.check(request{method: "key", path: "/kbs/v0/ " + what}, answer{refusal.Status, refusal.Header, refusal.Body})
	}
}
