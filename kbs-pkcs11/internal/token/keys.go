package token

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

const (
	maxKeys  = 1024 // of one label
	maxID    = 24   // bytes of CKA_ID that make a name
	keyBytes = 32   // AES-256
)

// Keys returns the names of the AES keys of a label, oldest first where they
// were made here: the CKA_ID in hexadecimal. A key that could be read out of
// the token, or that is none of AES-256, is an error that wraps ErrKey.
func (t *Token) Keys(ctx context.Context, label string) ([]string, error) {
	var names []string
	err := t.use(ctx, func(_ *login, s pkcs11.SessionHandle) error {
		found, err := t.find(s, aesKeys(label), maxKeys)
		if err != nil {
			return err
		}
		var ids [][]byte
		for _, h := range found {
			id, err := t.judge(s, h)
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		slices.SortFunc(ids, bytes.Compare)
		names = nil
		for i, id := range ids {
			if i > 0 && bytes.Equal(id, ids[i-1]) {
				return fmt.Errorf("%w: two keys %s have the CKA_ID %x", ErrKey, label, id)
			}
			names = append(names, hex.EncodeToString(id))
		}
		return nil
	})
	return names, err
}

func aesKeys(label string) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
	}
}

// find returns all objects that are like that; more than limit are an error. A
// module may hand them out in parts of any size (PKCS#11 2.40 section 5.7).
func (t *Token) find(s pkcs11.SessionHandle, like []*pkcs11.Attribute, limit int) ([]pkcs11.ObjectHandle, error) {
	if err := t.lib.FindObjectsInit(s, like); err != nil {
		return nil, fmt.Errorf("find objects: %w", err)
	}
	var found []pkcs11.ObjectHandle
	var err error
	for len(found) <= limit {
		var part []pkcs11.ObjectHandle
		if part, _, err = t.lib.FindObjects(s, limit+1-len(found)); err != nil || len(part) == 0 {
			break
		}
		found = append(found, part...)
	}
	if end := t.lib.FindObjectsFinal(s); err == nil {
		err = end
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("find objects: %w", err)
	case len(found) > limit:
		return nil, fmt.Errorf("%w: more than %d objects match", ErrKey, limit)
	}
	return found, nil
}

// judge returns the CKA_ID of a key that is fit to wrap others.
func (t *Token) judge(s pkcs11.SessionHandle, h pkcs11.ObjectHandle) ([]byte, error) {
	got, err := t.lib.GetAttributeValue(s, h, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ID, nil),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, nil),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, nil),
	})
	if err != nil {
		return nil, fmt.Errorf("read a key's attributes: %w", err)
	}
	id, sensitive, extractable, size := got[0].Value, got[1].Value, got[2].Value, got[3].Value
	switch {
	case len(id) == 0 || len(id) > maxID:
		return nil, fmt.Errorf("%w: its CKA_ID has %d bytes, want 1 to %d", ErrKey, len(id), maxID)
	case !bytes.Equal(sensitive, []byte{1}) || !bytes.Equal(extractable, []byte{0}):
		return nil, fmt.Errorf("%w: the key %x can be read out of the token", ErrKey, id)
	case !bytes.Equal(size, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, keyBytes).Value):
		return nil, fmt.Errorf("%w: the key %x is not of AES-256", ErrKey, id)
	}
	return id, nil
}

// key finds one key by its label and name, and remembers it for this login.
func (t *Token) key(l *login, s pkcs11.SessionHandle, label, name string) (pkcs11.ObjectHandle, error) {
	if h, ok := l.handles.Load(label + "/" + name); ok {
		return h.(pkcs11.ObjectHandle), nil
	}
	id, err := hex.DecodeString(name)
	if err != nil || len(id) == 0 || len(id) > maxID || hex.EncodeToString(id) != name {
		return 0, ErrUnknown
	}
	found, err := t.find(s, append(aesKeys(label), pkcs11.NewAttribute(pkcs11.CKA_ID, id)), 1)
	switch {
	case err != nil:
		return 0, err
	case len(found) == 0:
		return 0, fmt.Errorf("%w: %s", ErrUnknown, name)
	}
	if _, err := t.judge(s, found[0]); err != nil {
		return 0, err
	}
	l.handles.Store(label+"/"+name, found[0])
	return found[0], nil
}

// Make makes a key of AES-256 within the token, that cannot be read out of it,
// and returns its name. Its CKA_ID is the time in milliseconds, 8 bytes
// big-endian, and 8 random bytes: later keys sort later.
func (t *Token) Make(ctx context.Context, label string) (string, error) {
	id := binary.BigEndian.AppendUint64(nil, uint64(t.cfg.Now().UnixMilli()))
	id = append(id, make([]byte, 8)...)
	rand.Read(id[8:]) // never fails
	err := t.write(ctx, func(s pkcs11.SessionHandle) error {
		_, err := t.lib.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, append(aesKeys(label),
			pkcs11.NewAttribute(pkcs11.CKA_ID, id),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, keyBytes),
			pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
			pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
			pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_WRAP, false),
			pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
		))
		if err != nil {
			return fmt.Errorf("make a key: %w", err)
		}
		return nil
	})
	return hex.EncodeToString(id), err
}
