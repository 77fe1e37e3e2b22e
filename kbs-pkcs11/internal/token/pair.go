package token

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Padding is how RSA seals, by the names of the field (kbs-protocol 8).
type Padding string

// The paddings.
const (
	// OAEP is with SHA-256 and MGF1 of SHA-256.
	OAEP Padding = "RsaPkcsOaep"
	// OAEPSHA1 is for tokens that know no other, such as SoftHSM before 2.7. What
	// OAEP promises does not rest on the hash resisting collisions.
	OAEPSHA1 Padding = "RsaPkcsOaepSha1"
	// Test is PKCS#1 v1.5, which tells who may ask often enough what a sealed
	// value is. It is there because the field has it.
	Test Padding = "RsaPkcsTest"
)

const (
	minModulus  = 2048 // bits
	makeModulus = 3072
	maxModulus  = 16384
)

// Pair is a key pair of the token.
type Pair struct {
	Label   string // CKA_LABEL; empty: any
	ID      string // CKA_ID, raw; empty: any
	Padding Padding
}

func (p Pair) String() string {
	if p.ID == "" {
		return p.Label
	}
	return fmt.Sprintf("%s (id %x)", p.Label, p.ID)
}

// like is what one key of the pair has.
func (p Pair) like(class uint) []*pkcs11.Attribute {
	like := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}
	if p.Label != "" {
		like = append(like, pkcs11.NewAttribute(pkcs11.CKA_LABEL, p.Label))
	}
	if p.ID != "" {
		like = append(like, pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(p.ID)))
	}
	return like
}

// overhead is how many bytes of the modulus a padding takes (RFC 8017 sections
// 7.1.1 and 7.2.1).
func (p Padding) overhead() int {
	switch p {
	case OAEP:
		return 2*32 + 2
	case OAEPSHA1:
		return 2*20 + 2
	default:
		return 11
	}
}

func (p Padding) mechanism() []*pkcs11.Mechanism {
	oaep := func(hash, mgf uint) *pkcs11.Mechanism {
		return pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, pkcs11.NewOAEPParams(hash, mgf, pkcs11.CKZ_DATA_SPECIFIED, nil))
	}
	switch p {
	case Test:
		return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil)}
	case OAEPSHA1:
		return []*pkcs11.Mechanism{oaep(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1)}
	default:
		return []*pkcs11.Mechanism{oaep(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256)}
	}
}

// WrapKey has the token encrypt under the public key of a pair.
func (t *Token) WrapKey(ctx context.Context, p Pair, plaintext secret.Bytes) ([]byte, error) {
	var out []byte
	err := t.use(ctx, func(l *login, s pkcs11.SessionHandle) (err error) {
		out, err = t.encrypt(l, s, p, plaintext.Reveal())
		return err
	})
	return out, err
}

func (t *Token) encrypt(l *login, s pkcs11.SessionHandle, p Pair, plaintext []byte) ([]byte, error) {
	key, err := t.half(l, s, p, pkcs11.CKO_PUBLIC_KEY)
	if err != nil {
		return nil, err
	}
	if n := len(plaintext); n == 0 || n > key.size-p.Padding.overhead() {
		return nil, fmt.Errorf("%w: %d bytes, want 1 to %d", ErrSize, n, key.size-p.Padding.overhead())
	}
	if err := t.lib.EncryptInit(s, p.Padding.mechanism(), key.handle); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	out, err := t.lib.Encrypt(s, plaintext)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out, nil
}

// UnwrapKey has the token decrypt with the private key of a pair. What does not
// open is ErrOpen.
func (t *Token) UnwrapKey(ctx context.Context, p Pair, wrapped []byte) (secret.Bytes, error) {
	var out secret.Bytes
	err := t.use(ctx, func(l *login, s pkcs11.SessionHandle) error {
		plain, err := t.decrypt(l, s, p, wrapped)
		if vague(err) && t.pairWorks(l, s, p) {
			return ErrOpen
		}
		if err == nil {
			out = secret.New(plain)
		}
		return err
	})
	return out, err
}

func (t *Token) decrypt(l *login, s pkcs11.SessionHandle, p Pair, wrapped []byte) ([]byte, error) {
	key, err := t.half(l, s, p, pkcs11.CKO_PRIVATE_KEY)
	if err != nil {
		return nil, err
	}
	if len(wrapped) != key.size {
		return nil, fmt.Errorf("%w: it has %d bytes, want %d", ErrOpen, len(wrapped), key.size)
	}
	if err := t.lib.DecryptInit(s, p.Padding.mechanism(), key.handle); err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	if key.always {
		if err := t.logIn(l.slot, s, pkcs11.CKU_CONTEXT_SPECIFIC); err != nil {
			return nil, err
		}
	}
	plain, err := t.lib.Decrypt(s, wrapped)
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	return plain, nil
}

// pairWorks sees whether a pair opens what it has just sealed, like works.
func (t *Token) pairWorks(l *login, s pkcs11.SessionHandle, p Pair) bool {
	probe := make([]byte, keyBytes)
	rand.Read(probe) // never fails
	wrapped, err := t.encrypt(l, s, p, probe)
	if err != nil {
		return false
	}
	back, err := t.decrypt(l, s, p, wrapped)
	return err == nil && bytes.Equal(back, probe)
}

// half is one key of a pair, remembered for this login under halfOf.
type (
	half struct {
		handle pkcs11.ObjectHandle
		size   int  // of the modulus, in bytes
		always bool // it wants the PIN each time
	}
	halfOf struct {
		class     uint
		label, id string
	}
)

// half finds the public or the private key of a pair.
func (t *Token) half(l *login, s pkcs11.SessionHandle, p Pair, class uint) (half, error) {
	at := halfOf{class, p.Label, p.ID}
	if h, ok := l.handles.Load(at); ok {
		return h.(half), nil
	}
	found, err := t.find(s, append(p.like(class), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA)), 1)
	switch {
	case err != nil:
		return half{}, err
	case len(found) == 0:
		return half{}, fmt.Errorf("%w: no RSA key is called %s", ErrUnknown, p)
	}
	h := half{handle: found[0]}
	if h.size, err = t.judgePair(s, h.handle, class); err != nil {
		return half{}, err
	}
	if class == pkcs11.CKO_PRIVATE_KEY {
		if h.always, err = t.alwaysAuthenticate(s, h.handle); err != nil {
			return half{}, err
		}
	}
	l.handles.Store(at, h)
	return h, nil
}

// judgePair returns the size of a modulus, in bytes, of a key that is fit for
// use.
func (t *Token) judgePair(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, class uint) (int, error) {
	ask := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_MODULUS, nil)}
	if class == pkcs11.CKO_PRIVATE_KEY {
		ask = append(ask, pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, nil))
	}
	got, err := t.lib.GetAttributeValue(s, h, ask)
	if err != nil {
		return 0, fmt.Errorf("read a key's attributes: %w", err)
	}
	if len(got) == 3 && (!bytes.Equal(got[1].Value, []byte{1}) || !bytes.Equal(got[2].Value, []byte{0})) {
		return 0, fmt.Errorf("%w: the private key can be read out of the token", ErrKey)
	}
	bits := new(big.Int).SetBytes(got[0].Value).BitLen()
	if bits < minModulus || bits > maxModulus {
		return 0, fmt.Errorf("%w: an RSA key of %d bits, want %d to %d", ErrKey, bits, minModulus, maxModulus)
	}
	return (bits + 7) / 8, nil
}

// MakePair makes a pair of RSA-3072 within the token, unless the label has one.
func (t *Token) MakePair(ctx context.Context, label string) error {
	return t.write(ctx, func(s pkcs11.SessionHandle) error {
		_, err := t.half(&login{}, s, Pair{Label: label}, pkcs11.CKO_PRIVATE_KEY)
		if !errors.Is(err, ErrUnknown) {
			return err
		}
		both := []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
			pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(label)),
		}
		_, _, err = t.lib.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)},
			append(both[:len(both):len(both)],
				pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
				pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, makeModulus),
				pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})),
			append(both[:len(both):len(both)],
				pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
				pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
				pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
				pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true)))
		if err != nil {
			return fmt.Errorf("make a pair of keys: %w", err)
		}
		return nil
	})
}
