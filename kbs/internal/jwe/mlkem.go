package jwe

import (
	"crypto/mlkem"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// ML-KEM-768 alone is the field's, after an unfinished draft (kbs-protocol 4).
// The header member ek has the ciphertext.
const mlkemKeyBits = 192

// kemKey derives the key-wrapping key. The context is what the derivation binds
// beside the algorithm; every part of it has a fixed length.
func kemKey(shared []byte, alg string, bits uint32, context ...[]byte) []byte {
	data := binary.BigEndian.AppendUint32(nil, uint32(len(alg)))
	data = append(data, alg...)
	data = binary.BigEndian.AppendUint32(data, bits)
	for _, c := range context {
		data = append(data, c...)
	}
	return kmac256(shared, data, int(bits/8))
}

func kemRecipient(alg string, ciphertext, kek []byte) *recipient {
	return &recipient{header: header{Alg: alg, Enc: EncGCM, EK: encode(ciphertext)}, kek: kek}
}

type mlkemPublic struct{ key *mlkem.EncapsulationKey768 }

func parseMLKEM(jwk api.JWK) (public, error) {
	raw, err := decode(jwk.Pub, mlkem.EncapsulationKeySize768)
	if err != nil {
		return nil, fmt.Errorf("jwe: ML-KEM-768 key: %w", err)
	}
	key, err := mlkem.NewEncapsulationKey768(raw)
	if err != nil {
		return nil, fmt.Errorf("jwe: ML-KEM-768 key of %d bytes: %w", len(raw), err)
	}
	return mlkemPublic{key}, nil
}

func (p mlkemPublic) recipient(io.Reader) (*recipient, error) {
	shared, ciphertext := p.key.Encapsulate()
	defer clear(shared)
	return kemRecipient(AlgMLKEM, ciphertext, kemKey(shared, AlgMLKEM, mlkemKeyBits)), nil
}

type mlkemPrivate struct{ key *mlkem.DecapsulationKey768 }

func generateMLKEM() (*PrivateKey, error) {
	key, err := mlkem.GenerateKey768()
	if err != nil {
		return nil, fmt.Errorf("jwe: %w", err)
	}
	return &PrivateKey{AlgMLKEM, mlkemPrivate{key}}, nil
}

func (k mlkemPrivate) jwk() api.JWK {
	return api.JWK{Kty: "AKP", Alg: AlgMLKEM, Pub: encode(k.key.EncapsulationKey().Bytes())}
}

func (mlkemPrivate) der() (string, []byte, error) { return "", nil, ErrNoPEM }

func (k mlkemPrivate) unwrap(h header, encryptedKey []byte) ([]byte, error) {
	ciphertext, err := kemCiphertext(h, mlkem.CiphertextSize768)
	if err != nil {
		return nil, err
	}
	shared, err := k.key.Decapsulate(ciphertext)
	if err != nil {
		return nil, fmt.Errorf("jwe: %w", err)
	}
	defer clear(shared)
	kek := kemKey(shared, AlgMLKEM, mlkemKeyBits)
	defer clear(kek)
	return unwrapKey(kek, encryptedKey)
}

func kemCiphertext(h header, size int) ([]byte, error) {
	ciphertext, err := decode(h.EK, size)
	if err != nil || len(ciphertext) != size || h.EPK != nil {
		return nil, fmt.Errorf("jwe: ek is not a ciphertext of %d bytes", size)
	}
	return ciphertext, nil
}
