package tpmdev

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// quoteAttempts bounds how often registers that change under the quote are read
// again.
const quoteAttempts = 5

// Quote signs all 24 registers of a bank and the nonce by the key of a handle,
// RSASSA with SHA-256. It returns the TPMS_ATTEST, the TPMT_SIGNATURE and the
// values of the registers, all of the same moment.
func (t *TPM) Quote(ctx context.Context, handle uint32, bank eventlog.Algorithm, nonce []byte) (message, signature []byte, values [][]byte, err error) {
	err = t.do(ctx, func(dev transport.TPM) error {
		pub, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(dev)
		if err != nil {
			return fmt.Errorf("attestation key %#x: %w", handle, err)
		}
		key := tpm2.AuthHandle{Handle: tpm2.TPMHandle(handle), Name: pub.Name, Auth: tpm2.PasswordAuth(nil)}
		for range quoteAttempts {
			if values, err = readPCRs(dev, bank); err != nil {
				return err
			}
			var digest []byte
			if message, signature, digest, err = quoteOnce(dev, key, bank, nonce); err != nil {
				return err
			}
			if bytes.Equal(digest, eventlog.SHA256.Sum(values...)) {
				return nil
			}
		}
		return errors.New("the PCRs change faster than they can be quoted")
	})
	if err != nil {
		return nil, nil, nil, err
	}
	return message, signature, values, nil
}

// quoteOnce also returns the digest of the registers that were quoted.
func quoteOnce(dev transport.TPM, key tpm2.AuthHandle, bank eventlog.Algorithm, nonce []byte) (message, signature, digest []byte, err error) {
	all := make([]uint, PCRs)
	for i := range all {
		all[i] = uint(i)
	}
	rsp, err := tpm2.Quote{
		SignHandle: key, QualifyingData: tpm2.TPM2BData{Buffer: nonce}, InScheme: rsassa, PCRSelect: selection(bank, all...),
	}.Execute(dev)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("quote: %w", err)
	}
	attest, err := rsp.Quoted.Contents()
	if err != nil {
		return nil, nil, nil, err
	}
	info, err := attest.Attested.Quote()
	if err != nil {
		return nil, nil, nil, err
	}
	if _, err := rsp.Signature.Signature.RSASSA(); err != nil {
		return nil, nil, nil, fmt.Errorf("the TPM signs by another scheme: %w", err)
	}
	if !bytes.Equal(attest.ExtraData.Buffer, nonce) {
		return nil, nil, nil, errors.New("the TPM quotes over another nonce")
	}
	return rsp.Quoted.Bytes(), tpm2.Marshal(rsp.Signature), info.PCRDigest.Buffer, nil
}

// rsassa is the one scheme that evidence of TPMs has on the wire.
var rsassa = tpm2.TPMTSigScheme{
	Scheme:  tpm2.TPMAlgRSASSA,
	Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
}

// akTemplate is a key that signs nothing but what the TPM itself says, that
// never leaves it, and that the same TPM makes again from the same template.
var akTemplate = tpm2.TPMTPublic{
	Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
		Restricted: true, SignEncrypt: true,
	},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Scheme: tpm2.TPMTRSAScheme{
			Scheme:  tpm2.TPMAlgRSASSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		KeyBits: 2048,
	}),
	Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 256)}),
}

// AttestationKey returns the public part of the persistent key of a handle. If
// there is none and create is set, one is made in the endorsement hierarchy and
// kept there. A key that could sign what the TPM did not say is refused.
func (t *TPM) AttestationKey(ctx context.Context, handle uint32, create bool) (key *rsa.PublicKey, err error) {
	err = t.do(ctx, func(dev transport.TPM) error {
		rsp, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(dev)
		if errors.Is(err, tpm2.TPMRCHandle) && create {
			if err = createKey(dev, handle); err == nil {
				rsp, err = tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(dev)
			}
		}
		if err != nil {
			return fmt.Errorf("attestation key %#x: %w", handle, err)
		}
		pub, err := rsp.OutPublic.Contents()
		if err != nil {
			return err
		}
		if key, err = attestationKey(pub); err != nil {
			return fmt.Errorf("the key at %#x: %w", handle, err)
		}
		return nil
	})
	return key, err
}

func attestationKey(pub *tpm2.TPMTPublic) (*rsa.PublicKey, error) {
	o := pub.ObjectAttributes
	if !o.Restricted || !o.SignEncrypt || o.Decrypt || !o.FixedTPM || !o.FixedParent || !o.SensitiveDataOrigin {
		return nil, errors.New("is no attestation key: it must be a restricted signing key that was made in the TPM and never leaves it")
	}
	if pub.Type != tpm2.TPMAlgRSA {
		return nil, errors.New("is no RSA key, which evidence on the wire must be signed by")
	}
	parms, err := pub.Parameters.RSADetail()
	if err != nil {
		return nil, err
	}
	n, err := pub.Unique.RSA()
	if err != nil {
		return nil, err
	}
	return tpm2.RSAPub(parms, n)
}

func createKey(dev transport.TPM, handle uint32) (err error) {
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(akTemplate),
	}.Execute(dev)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	defer func() {
		_, flush := tpm2.FlushContext{FlushHandle: rsp.ObjectHandle}.Execute(dev)
		err = errors.Join(err, flush)
	}()
	_, err = tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:     &tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name},
		PersistentHandle: tpm2.TPMHandle(handle),
	}.Execute(dev)
	if err != nil {
		return fmt.Errorf("keep: %w", err)
	}
	return nil
}
