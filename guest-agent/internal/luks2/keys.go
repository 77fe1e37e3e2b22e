package luks2

import (
	"crypto/aes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"hash"
	"unsafe"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// hashName is an accepted hash.
type hashName string

const (
	sha256Name hashName = "sha256"
	sha512Name hashName = "sha512"
)

func (n hashName) new() hash.Hash {
	if n == sha512Name {
		return sha512.New()
	}
	return sha256.New()
}

func (n hashName) size() int { return n.new().Size() }

// kdf is PBKDF2 with its parameters.
type kdf struct {
	hash       hashName
	salt       []byte
	iterations int
}

// derive returns size bytes.
func (k kdf) derive(key secret.Bytes, size int) (secret.Bytes, error) {
	if key.Len() == 0 {
		return secret.Bytes{}, errors.New("the key is empty")
	}
	b := key.Reveal()
	// The function wants a string, and a copy of the key in one could not be
	// cleared. It keeps none, and nobody changes the bytes meanwhile.
	out, err := pbkdf2.Key(k.hash.new, unsafe.String(&b[0], len(b)), k.salt, k.iterations, size)
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New(out), nil
}

// digest recognises a volume key.
type digest struct {
	kdf  kdf
	want []byte
}

func (d digest) fits(volumeKey secret.Bytes) (bool, error) {
	got, err := d.kdf.derive(volumeKey, len(d.want))
	if err != nil {
		return false, err
	}
	defer got.Destroy()
	return subtle.ConstantTimeCompare(got.Reveal(), d.want) == 1, nil
}

// merge is the reverse of split: the key from its stripes (specification,
// section 3.2.4; LUKS1, section 2.4).
func merge(material secret.Bytes, h hashName) secret.Bytes {
	m := material.Reveal()
	size := len(m) / stripes
	key := make([]byte, size)
	for i := range stripes - 1 {
		subtle.XORBytes(key, key, m[i*size:][:size])
		diffuse(key, h)
	}
	subtle.XORBytes(key, key, m[(stripes-1)*size:])
	return secret.New(key)
}

// split spreads a key over stripes, all of which are needed to get it back.
// random fills all but the last.
func split(key secret.Bytes, h hashName) secret.Bytes {
	size := key.Len()
	material := secret.Random(size * stripes)
	m := material.Reveal()
	sum := make([]byte, size)
	defer clear(sum)
	for i := range stripes - 1 {
		subtle.XORBytes(sum, sum, m[i*size:][:size])
		diffuse(sum, h)
	}
	subtle.XORBytes(m[(stripes-1)*size:], sum, key.Reveal())
	return material
}

// diffuse replaces each part of b, as long as a hash, by the hash of its number
// and itself.
func diffuse(b []byte, name hashName) {
	h := name.new()
	for i, n := 0, h.Size(); i*n < len(b); i++ {
		part := b[i*n : min((i+1)*n, len(b))]
		h.Reset()
		_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(i))) // a hash never fails
		_, _ = h.Write(part)
		copy(part, h.Sum(nil))
	}
}

// xts encrypts or decrypts whole sectors of 512 bytes in place, the first with
// the number 0: AES in XTS mode (IEEE 1619) with the number as the tweak, as
// dm-crypt's plain64.
func xts(key, data []byte, encrypt bool) error {
	block, err := aes.NewCipher(key[:len(key)/2])
	if err != nil {
		return err
	}
	tweaks, err := aes.NewCipher(key[len(key)/2:])
	if err != nil {
		return err
	}
	var tweak [aes.BlockSize]byte
	for i := 0; i < len(data); i += aes.BlockSize {
		if i%slotSector == 0 {
			clear(tweak[:])
			binary.LittleEndian.PutUint64(tweak[:], uint64(i/slotSector))
			tweaks.Encrypt(tweak[:], tweak[:])
		}
		part := data[i:][:aes.BlockSize]
		subtle.XORBytes(part, part, tweak[:])
		if encrypt {
			block.Encrypt(part, part)
		} else {
			block.Decrypt(part, part)
		}
		subtle.XORBytes(part, part, tweak[:])
		double(&tweak)
	}
	return nil
}

// double multiplies by x in GF(2^128), little-endian, with the polynomial of XTS.
func double(t *[aes.BlockSize]byte) {
	lo, hi := binary.LittleEndian.Uint64(t[:8]), binary.LittleEndian.Uint64(t[8:])
	carry := hi >> 63
	binary.LittleEndian.PutUint64(t[8:], hi<<1|lo>>63)
	binary.LittleEndian.PutUint64(t[:8], lo<<1^carry*0x87)
}
