package token

import (
	"cmp"
	"crypto/elliptic"

	"github.com/miekg/pkcs11"
)

// Break closes all sessions behind the token's back, as a token that was taken
// out and put back does.
func Break(t *Token) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.lib.CloseAllSessions(t.login.slot)
}

// Create makes an object as somebody else would.
func Create(t *Token, like ...*pkcs11.Attribute) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s, err := t.lib.OpenSession(t.login.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	defer func() { _ = t.lib.CloseSession(s) }()
	_, err = t.lib.CreateObject(s, append(like, pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)))
	return err
}

// ParsePoint is parsePoint, ParseEdwards parseEdwards.
var (
	ParsePoint   = parsePoint
	ParseEdwards = parseEdwards
)

// Info is what the token says of itself.
func Info(t *Token) (pkcs11.TokenInfo, uint, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	info, err := t.lib.GetTokenInfo(t.login.slot)
	return info, t.login.slot, err
}

// Made is a key pair as somebody else would make it.
type Made struct {
	Curve   elliptic.Curve
	Params  []byte // of another curve
	Bits    uint   // of an RSA key
	Edwards bool   // of Ed25519

	Readable, Silent, NoPublic, NoPrivate bool

	Always      bool   // it wants the PIN each time
	Only        uint   // the one mechanism that it may be used with
	PublicLabel string // of the public key, if it is another one
}

// MakeSigner makes a pair that signs, or of which something is wrong.
func MakeSigner(t *Token, label, id string, m Made) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s, err := t.lib.OpenSession(t.login.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	defer func() { _ = t.lib.CloseSession(s) }()
	named := func(label string, kept bool) []*pkcs11.Attribute {
		return []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, kept), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(id)),
		}
	}
	public, mechanism := append(named(cmp.Or(m.PublicLabel, label), !m.NoPublic), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true)), uint(pkcs11.CKM_EC_KEY_PAIR_GEN)
	switch {
	case m.Bits > 0:
		mechanism = pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN
		public = append(public, pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, m.Bits), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}))
	case m.Edwards:
		mechanism = 0x1055 // CKM_EC_EDWARDS_KEY_PAIR_GEN
		public = append(public, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, []byte{6, 3, 0x2b, 0x65, 0x70}))
	case m.Params != nil:
		public = append(public, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, m.Params))
	default:
		params := map[elliptic.Curve][]byte{
			elliptic.P256(): {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}, elliptic.P384(): {6, 5, 0x2b, 0x81, 4, 0, 34}, elliptic.P521(): {6, 5, 0x2b, 0x81, 4, 0, 35},
		}[m.Curve]
		public = append(public, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params))
	}
	private := append(named(label, !m.NoPrivate),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, !m.Readable),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, m.Readable), pkcs11.NewAttribute(pkcs11.CKA_SIGN, !m.Silent))
	if m.Always {
		private = append(private, pkcs11.NewAttribute(pkcs11.CKA_ALWAYS_AUTHENTICATE, true))
	}
	if m.Only != 0 {
		private = append(private, pkcs11.NewAttribute(pkcs11.CKA_ALLOWED_MECHANISMS, m.Only))
	}
	_, _, err = t.lib.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, public, private)
	return err
}
