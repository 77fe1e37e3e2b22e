package crypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const (
	keySize   = 32 // bytes; AES-256
	nonceSize = 16 // bytes; the initial counter block, big endian
	macSize   = sha256.Size
)

// An HMACError says that the ciphertext is not what was encrypted.
type HMACError struct{ Wanted, Seen string } // hex

func (e *HMACError) Error() string {
	return fmt.Sprintf("layer HMAC is %s, not %s", e.Seen, e.Wanted)
}

// A Decrypter reads a layer's plaintext. At the end of the ciphertext it
// compares the HMAC and gives an [*HMACError] instead of io.EOF if it differs.
type Decrypter struct {
	src    io.Reader
	stream cipher.Stream
	mac    hash.Hash
	wanted []byte
	err    error // sticky
}

// NewDecrypter starts decryption. Public and Private come from
// [ParsePublic] and [ParsePrivate].
func NewDecrypter(src io.Reader, pub Public, priv Private) (*Decrypter, error) {
	if len(pub.HMAC) != macSize {
		return nil, fmt.Errorf("layer HMAC of %d bytes, want %d", len(pub.HMAC), macSize)
	}
	nonce := pub.nonce(priv)
	stream, mac, err := newCipher(priv.Key, nonce)
	if err != nil {
		return nil, err
	}
	return &Decrypter{src: src, stream: stream, mac: mac, wanted: pub.HMAC}, nil
}

func newCipher(key secret.Bytes, nonce []byte) (cipher.Stream, hash.Hash, error) {
	if key.Len() != keySize {
		return nil, nil, fmt.Errorf("layer key of %d bytes, want %d", key.Len(), keySize)
	}
	if len(nonce) != nonceSize {
		return nil, nil, fmt.Errorf("layer nonce of %d bytes, want %d", len(nonce), nonceSize)
	}
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		return nil, nil, err
	}
	return cipher.NewCTR(block, nonce), hmac.New(sha256.New, key.Reveal()), nil
}

func (d *Decrypter) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.src.Read(p)
	_, _ = d.mac.Write(p[:n]) // a hash never fails
	if err != nil {
		d.err = err
		if errors.Is(err, io.EOF) {
			if seen := d.mac.Sum(nil); !hmac.Equal(seen, d.wanted) {
				d.err = &HMACError{Wanted: hex.EncodeToString(d.wanted), Seen: hex.EncodeToString(seen)}
				return 0, d.err
			}
		}
	}
	d.stream.XORKeyStream(p[:n], p[:n])
	return n, d.err
}

// An Encrypter reads a layer's ciphertext, under a key and nonce drawn for
// this layer alone. After io.EOF, [Encrypter.Options] gives what a reader of
// the layer needs.
type Encrypter struct {
	src    io.Reader
	stream cipher.Stream
	mac    hash.Hash
	key    secret.Bytes
	nonce  []byte
	done   bool
	err    error
}

// NewEncrypter starts encryption with a fresh random key and nonce.
func NewEncrypter(src io.Reader) (*Encrypter, error) {
	key, nonce := secret.Random(keySize), secret.Random(nonceSize).Reveal()
	stream, mac, err := newCipher(key, nonce)
	if err != nil {
		return nil, err
	}
	return &Encrypter{src: src, stream: stream, mac: mac, key: key, nonce: nonce}, nil
}

func (e *Encrypter) Read(p []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	n, err := e.src.Read(p)
	e.stream.XORKeyStream(p[:n], p[:n])
	_, _ = e.mac.Write(p[:n])
	if err != nil {
		e.err, e.done = err, errors.Is(err, io.EOF)
	}
	return n, err
}

// Options returns the public and private options of the layer. plain is the
// digest of the blob before encryption, which ocicrypt keeps beside the key.
// It fails before the layer was read to its end.
func (e *Encrypter) Options(plain digest.Digest) (Public, Private, error) {
	if !e.done {
		return Public{}, Private{}, errors.New("the layer was not encrypted to its end")
	}
	return Public{HMAC: e.mac.Sum(nil)}, Private{Key: e.key, Nonce: e.nonce, Digest: plain}, nil
}
