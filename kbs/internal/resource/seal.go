package resource

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Each value has a data key of its own, which
//
//   - is wrapped under the master key with the tenant (see tenant.Wrapper) and
//     the path;
//   - seals the value with the path, the version that brought it, and its
//     description;
//   - if the value is the current one, seals the resource's head with the path
//     and the version of the record that the head lies in.
//
// So neither a value nor a head opens at another path, in another version, for
// another tenant, or beside another description: a key's binding to its image
// cannot be taken from it. Nonces are random. A data key seals one value and as
// many heads as the resource has changes until the next value.
const (
	sizeOverhead = 12 + 16
	sizeTag      = sizeOverhead
)

func boundKey(path string) []byte { return []byte("vouchsafe resource key v1\x00" + path) }

func boundAt(label string, version int64, path string, rest []byte) []byte {
	b := append(make([]byte, 0, len(label)+13+len(path)+len(rest)), label...)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(version))
	b = binary.BigEndian.AppendUint32(b, uint32(len(path)))
	b = append(b, path...)
	return append(b, rest...)
}

// dataKey seals and opens with one data key.
type dataKey struct{ aead cipher.AEAD }

func newDataKey(key secret.Bytes) (dataKey, error) {
	if key.Len() != kek.Size {
		return dataKey{}, fmt.Errorf("%w: its data key has %d bytes", ErrSealed, key.Len())
	}
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		return dataKey{}, fmt.Errorf("resource: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return dataKey{}, fmt.Errorf("resource: %w", err)
	}
	return dataKey{aead}, nil
}

// freshKey makes a data key and wraps it.
func freshKey(ctx context.Context, by kek.Wrapper, path string) (dataKey, []byte, error) {
	key := secret.Random(kek.Size)
	defer key.Destroy()
	wrapped, err := by.Wrap(ctx, key, boundKey(path))
	if err != nil {
		return dataKey{}, nil, fmt.Errorf("resource: wrap a data key: %w", err)
	}
	k, err := newDataKey(key)
	return k, wrapped, err
}

// openKey unwraps a data key.
func openKey(ctx context.Context, by kek.Wrapper, path string, wrapped []byte) (dataKey, error) {
	key, err := by.Unwrap(ctx, wrapped, boundKey(path))
	if errors.Is(err, kek.ErrUnwrap) || errors.Is(err, kek.ErrUnknown) {
		return dataKey{}, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	if err != nil {
		return dataKey{}, fmt.Errorf("resource: unwrap a data key: %w", err)
	}
	defer key.Destroy()
	return newDataKey(key)
}

func (k dataKey) sealValue(value secret.Bytes, path string, v version) []byte {
	return k.aead.Seal(nil, nil, value.Reveal(), boundAt("value", v.Version, path, v.description()))
}

func (k dataKey) openValue(sealed []byte, path string, v version) (secret.Bytes, error) {
	raw, err := k.aead.Open(nil, nil, sealed, boundAt("value", v.Version, path, v.description()))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: it was altered, or is not this version's", ErrSealed)
	}
	return secret.New(raw), nil
}

// sealHead returns the tag of a head that lies in the given version of its
// record.
func (k dataKey) sealHead(head []byte, path string, record int64) []byte {
	return k.aead.Seal(nil, nil, nil, boundAt("head", record, path, head))
}

func (k dataKey) checkHead(r record, path string, at int64) error {
	if _, err := k.aead.Open(nil, nil, r.tag, boundAt("head", at, path, r.text)); err != nil {
		return fmt.Errorf("%w: its description was altered, or brought back", ErrSealed)
	}
	return nil
}
