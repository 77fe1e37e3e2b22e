package snp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// IDBlock says which launch a guest's owner allows. The processor refuses to
// launch anything else under it, and reports who signed it: a verifier can then
// demand a key and a version instead of a measurement for each shape of a
// machine (SEV-SNP ABI, structure ID_BLOCK).
type IDBlock struct {
	Measurement       [48]byte
	FamilyID, ImageID [16]byte
	Version           uint32 // of the guest, the owner's to choose
	Policy            uint64 // the guest's policy; see [DefaultPolicy]
}

// Sizes in bytes.
const (
	IDBlockSize = 96
	IDAuthSize  = 4096
)

// Marshal returns the block as the processor reads it.
func (b IDBlock) Marshal() []byte {
	const form = 1
	le := binary.LittleEndian
	out := slices.Concat(b.Measurement[:], b.FamilyID[:], b.ImageID[:])
	out = le.AppendUint32(out, form)
	out = le.AppendUint32(out, b.Version)
	return le.AppendUint64(out, b.Policy)
}

// Key material in the authentication structure (SEV-SNP ABI, ID_AUTH_INFO;
// measure.md a.10). P-384 is the only curve there is.
const (
	keySize       = 1028
	signatureSize = 512
	curveP384     = 2
	ecdsaP384     = 1 // the algorithm, with SHA-384
	componentSize = 72
)

// KeyDigest is how a report names a key: id_key_digest, author_key_digest.
func KeyDigest(key crypto.PublicKey) (digest [48]byte, err error) {
	raw, err := marshalKey(key)
	if err != nil {
		return digest, err
	}
	return sha512.Sum384(raw), nil
}

func marshalKey(key crypto.PublicKey) ([]byte, error) {
	k, ok := key.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P384() {
		return nil, fmt.Errorf("ID and author keys are of ECDSA over P-384, not %T", key)
	}
	point, err := k.Bytes() // 4, X, Y
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	const width = 48
	raw := make([]byte, keySize)
	binary.LittleEndian.PutUint32(raw, curveP384)
	putReversed(raw[4:], point[1:1+width])
	putReversed(raw[4+componentSize:], point[1+width:])
	return raw, nil
}

// putReversed writes a big-endian number the other way round.
func putReversed(to, number []byte) {
	for i, b := range number {
		to[len(number)-1-i] = b
	}
}

// Sign returns the authentication structure for the block: the id key's
// signature over it, and the author key's over the id key. The author key may be
// nil, and then the report names none.
func (b IDBlock) Sign(id, author crypto.Signer) ([]byte, error) {
	if id == nil {
		return nil, errors.New("no id key given")
	}
	raw, err := marshalKey(id.Public())
	if err != nil {
		return nil, err
	}
	signature, err := signP384(id, b.Marshal())
	if err != nil {
		return nil, err
	}
	const block, idKey, keySignature, authorKey = 0x40, 0x240, 0x680, 0x880
	out := make([]byte, IDAuthSize)
	binary.LittleEndian.PutUint32(out, ecdsaP384)
	copy(out[block:], signature)
	copy(out[idKey:], raw)
	if author == nil {
		return out, nil
	}
	above, err := marshalKey(author.Public())
	if err != nil {
		return nil, err
	}
	if signature, err = signP384(author, raw); err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint32(out[4:], ecdsaP384)
	copy(out[keySignature:], signature)
	copy(out[authorKey:], above)
	return out, nil
}

func signP384(key crypto.Signer, message []byte) ([]byte, error) {
	digest := sha512.Sum384(message)
	der, err := key.Sign(rand.Reader, digest[:], crypto.SHA384)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	r, s, err := parseECDSA(der)
	if err != nil {
		return nil, err
	}
	out := make([]byte, signatureSize)
	var buffer [48]byte
	putReversed(out, r.FillBytes(buffer[:]))
	putReversed(out[componentSize:], s.FillBytes(buffer[:]))
	return out, nil
}

// parseECDSA takes an ASN.1 signature apart.
func parseECDSA(der []byte) (r, s *big.Int, err error) {
	var sig struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &sig); err != nil || len(rest) > 0 {
		return nil, nil, errors.New("the key's signature is not that of ECDSA")
	}
	return sig.R, sig.S, nil
}
