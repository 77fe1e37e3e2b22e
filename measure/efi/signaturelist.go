package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrSignatureList says that a variable of Secure Boot is malformed.
var ErrSignatureList = errors.New("malformed list of signatures")

// Kinds of entries in the variables of Secure Boot (UEFI 2.11, 32.4.1).
var (
	CertX509   = NewGUID(0xa5c059a1, 0x94e4, 0x4aa7, 0x87b5ab155c2bf072)
	CertSHA256 = NewGUID(0xc1c41626, 0x504c, 0x4092, 0xaca941f936934328)
)

const (
	listHeader = 28
	ownerSize  = 16

	// MaxSignatures is the largest variable of Secure Boot that is read, in bytes.
	MaxSignatures = 1 << 20
)

// A Signature is an entry of a list: a certificate in DER, or a digest, by its
// kind.
type Signature struct {
	Kind, Owner GUID
	Data        []byte
}

// SignatureData returns EFI_SIGNATURE_DATA of the entry, which a firmware measures
// when the entry is what made it trust an image.
func (s Signature) SignatureData() []byte {
	return append(append([]byte(nil), s.Owner[:]...), s.Data...)
}

// SignatureList returns EFI_SIGNATURE_LIST with one entry: the content of PK, KEK or
// db where one certificate is all that there is.
func SignatureList(s Signature) []byte {
	size := ownerSize + len(s.Data)
	b := append([]byte(nil), s.Kind[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(listHeader+size))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	return append(b, s.SignatureData()...)
}

// ParseSignatureLists reads the content of a variable: lists, one behind the
// other, each of entries of one kind and size.
func ParseSignatureLists(raw []byte) ([]Signature, error) {
	if len(raw) > MaxSignatures {
		return nil, fmt.Errorf("%w: %d bytes", ErrSignatureList, len(raw))
	}
	le := binary.LittleEndian
	var out []Signature
	for len(raw) > 0 {
		if len(raw) < listHeader {
			return nil, fmt.Errorf("%w: it is cut", ErrSignatureList)
		}
		size, header, each := uint64(le.Uint32(raw[16:])), uint64(le.Uint32(raw[20:])), uint64(le.Uint32(raw[24:]))
		if size > uint64(len(raw)) || listHeader+header > size || each <= ownerSize || (size-listHeader-header)%each != 0 {
			return nil, fmt.Errorf("%w: a list of %d bytes with entries of %d bytes", ErrSignatureList, size, each)
		}
		kind := GUID(raw)
		for entries := raw[listHeader+header : size]; len(entries) > 0; entries = entries[each:] {
			out = append(out, Signature{kind, GUID(entries), entries[ownerSize:each:each]})
		}
		raw = raw[size:]
	}
	return out, nil
}
