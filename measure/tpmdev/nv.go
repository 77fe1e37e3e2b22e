package tpmdev

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// ErrNoIndex means that the TPM has no NV index of the number.
var ErrNoIndex = errors.New("no such NV index")

// maxIndex bounds what is read of an index in bytes, nvChunk what is read or
// written at a time: every TPM of a PC takes that much.
const (
	maxIndex = 16 << 10
	nvChunk  = 512
)

// ReadNV returns the content of an index that its reader may read without a
// password, or by that of the owner, which is empty. If there is none the error
// wraps [ErrNoIndex].
func (t *TPM) ReadNV(ctx context.Context, index uint32) (data []byte, err error) {
	err = t.do(ctx, func(dev transport.TPM) error {
		nv, err := openIndex(dev, index)
		if err != nil {
			return err
		}
		if nv.size > maxIndex {
			return fmt.Errorf("NV index %#x has %d bytes, at most %d are read", index, nv.size, maxIndex)
		}
		for len(data) < nv.size {
			rsp, err := tpm2.NVRead{
				AuthHandle: nv.auth(nv.attributes.OwnerRead && !nv.attributes.AuthRead), NVIndex: nv.named,
				Size: uint16(min(nvChunk, nv.size-len(data))), Offset: uint16(len(data)), //nolint:gosec // below maxIndex
			}.Execute(dev)
			if err != nil {
				return fmt.Errorf("read NV index %#x: %w", index, err)
			}
			if len(rsp.Data.Buffer) == 0 {
				return fmt.Errorf("read NV index %#x: the TPM returns nothing", index)
			}
			data = append(data, rsp.Data.Buffer...)
		}
		return nil
	})
	return data, err
}

// WriteNV writes an index of exactly the data's size, which it defines first
// where there is none, or one of another size.
func (t *TPM) WriteNV(ctx context.Context, index uint32, data []byte) error {
	if len(data) == 0 || len(data) > nvChunk {
		return fmt.Errorf("an NV index of %d bytes, want 1 to %d", len(data), nvChunk)
	}
	return t.do(ctx, func(dev transport.TPM) error {
		nv, err := openIndex(dev, index)
		if err == nil && nv.size != len(data) {
			if _, err = (tpm2.NVUndefineSpace{AuthHandle: ownerAuth(), NVIndex: nv.named}).Execute(dev); err != nil {
				return fmt.Errorf("undefine NV index %#x: %w", index, err)
			}
			err = ErrNoIndex
		}
		if errors.Is(err, ErrNoIndex) {
			if err = defineIndex(dev, index, len(data)); err == nil {
				nv, err = openIndex(dev, index)
			}
		}
		if err != nil {
			return err
		}
		_, err = tpm2.NVWrite{
			AuthHandle: nv.auth(nv.attributes.OwnerWrite && !nv.attributes.AuthWrite), NVIndex: nv.named,
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: data},
		}.Execute(dev)
		if err != nil {
			return fmt.Errorf("write NV index %#x: %w", index, err)
		}
		return nil
	})
}

type nvIndex struct {
	named      tpm2.NamedHandle
	size       int
	attributes tpm2.TPMANV
}

func openIndex(dev transport.TPM, index uint32) (nv nvIndex, err error) {
	rsp, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(dev)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nv, fmt.Errorf("%w: %#x", ErrNoIndex, index)
	}
	if err != nil {
		return nv, fmt.Errorf("NV index %#x: %w", index, err)
	}
	pub, err := rsp.NVPublic.Contents()
	if err != nil {
		return nv, fmt.Errorf("NV index %#x: %w", index, err)
	}
	return nvIndex{
		named: tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: rsp.NVName},
		size:  int(pub.DataSize), attributes: pub.Attributes,
	}, nil
}

func ownerAuth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
}

// auth is the index's own authorisation, or the owner's.
func (nv nvIndex) auth(owner bool) tpm2.AuthHandle {
	if owner {
		return ownerAuth()
	}
	return tpm2.AuthHandle{Handle: nv.named.Handle, Name: nv.named.Name, Auth: tpm2.PasswordAuth(nil)}
}

func defineIndex(dev transport.TPM, index uint32, size int) error {
	_, err := tpm2.NVDefineSpace{
		AuthHandle: ownerAuth(),
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: tpm2.TPMHandle(index), NameAlg: tpm2.TPMAlgSHA256,
			Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthWrite: true, AuthRead: true, NT: tpm2.TPMNTOrdinary},
			DataSize:   uint16(size), //nolint:gosec // at most nvChunk
		}),
	}.Execute(dev)
	if err != nil {
		return fmt.Errorf("define NV index %#x: %w", index, err)
	}
	return nil
}
