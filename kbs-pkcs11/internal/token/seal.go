package token

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Limits of what is sealed, in bytes.
const (
	MaxPlaintext = 512
	MaxBound     = 4096
	ivBytes      = 12
	tagBytes     = 16
)

// Wrap has the token seal plaintext under a key, with bound authenticated. The
// result is a random 96-bit IV, the AES-GCM ciphertext and its tag of 128 bits;
// one key seals at most 2^32 times (NIST SP 800-38D section 8.3).
func (t *Token) Wrap(ctx context.Context, label, name string, plaintext secret.Bytes, bound []byte) ([]byte, error) {
	if n := plaintext.Len(); n == 0 || n > MaxPlaintext || len(bound) > MaxBound {
		return nil, fmt.Errorf("%w: %d bytes bound to %d, want 1 to %d and at most %d", ErrSize, n, len(bound), MaxPlaintext, MaxBound)
	}
	var out []byte
	err := t.use(ctx, func(l *login, s pkcs11.SessionHandle) (err error) {
		if out, err = t.seal(l, s, label, name, plaintext.Reveal(), bound); err != nil {
			return fmt.Errorf("encrypt: %w", err)
		}
		return nil
	})
	return out, err
}

// Unwrap has the token open what Wrap made.
func (t *Token) Unwrap(ctx context.Context, label, name string, wrapped, bound []byte) (secret.Bytes, error) {
	if len(bound) > MaxBound {
		return secret.Bytes{}, ErrSize
	}
	if n := len(wrapped) - ivBytes - tagBytes; n <= 0 || n > MaxPlaintext {
		return secret.Bytes{}, fmt.Errorf("%w: it has %d bytes", ErrOpen, len(wrapped))
	}
	var out secret.Bytes
	err := t.use(ctx, func(l *login, s pkcs11.SessionHandle) error {
		plain, err := t.open(l, s, label, name, wrapped, bound)
		if vague(err) && t.works(l, s, label, name) {
			return ErrOpen
		}
		if err != nil {
			return fmt.Errorf("decrypt: %w", err)
		}
		out = secret.New(plain)
		return nil
	})
	return out, err
}

func (t *Token) seal(l *login, s pkcs11.SessionHandle, label, name string, plaintext, bound []byte) ([]byte, error) {
	iv := make([]byte, ivBytes)
	rand.Read(iv) // never fails
	sealed, err := t.gcm(l, s, label, name, iv, bound, func(m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) ([]byte, error) {
		if err := t.lib.EncryptInit(s, m, key); err != nil {
			return nil, err
		}
		return t.lib.Encrypt(s, plaintext)
	})
	switch {
	case err != nil:
		return nil, err
	case len(sealed) != len(plaintext)+tagBytes:
		return nil, fmt.Errorf("%w: the token made %d bytes of %d", ErrAway, len(sealed), len(plaintext))
	}
	return append(iv, sealed...), nil
}

func (t *Token) open(l *login, s pkcs11.SessionHandle, label, name string, wrapped, bound []byte) ([]byte, error) {
	return t.gcm(l, s, label, name, wrapped[:ivBytes], bound, func(m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) ([]byte, error) {
		if err := t.lib.DecryptInit(s, m, key); err != nil {
			return nil, err
		}
		return t.lib.Decrypt(s, wrapped[ivBytes:])
	})
}

// gcm runs one operation of AES-GCM with its parameters in the library's
// memory.
func (t *Token) gcm(l *login, s pkcs11.SessionHandle, label, name string, iv, bound []byte,
	do func([]*pkcs11.Mechanism, pkcs11.ObjectHandle) ([]byte, error),
) ([]byte, error) {
	key, err := t.key(l, s, label, name)
	if err != nil {
		return nil, err
	}
	params := pkcs11.NewGCMParams(iv, bound, 8*tagBytes)
	defer params.Free()
	return do([]*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, key)
}

// vague reports whether an error may mean that the tag did not fit. The
// standard names no one code for that, and modules give these.
func vague(err error) bool {
	return !errors.Is(err, ErrPIN) && is(err, pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_DATA_INVALID,
		aeadDecryptFailed, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED)
}

// aeadDecryptFailed is PKCS#11 3.0's CKR_AEAD_DECRYPT_FAILED.
const aeadDecryptFailed = 0x42

// works sees whether the key opens what it has just sealed: then it is the
// bytes that were bad, and not the token.
func (t *Token) works(l *login, s pkcs11.SessionHandle, label, name string) bool {
	probe := make([]byte, keyBytes)
	rand.Read(probe) // never fails
	wrapped, err := t.seal(l, s, label, name, probe, nil)
	if err != nil {
		return false
	}
	back, err := t.open(l, s, label, name, wrapped, nil)
	return err == nil && bytes.Equal(back, probe)
}
