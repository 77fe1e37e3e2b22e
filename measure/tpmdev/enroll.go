package tpmdev

import (
	"context"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// ekCertificateIndex is where a TPM keeps the certificate of its RSA endorsement
// key (EK Credential Profile 2.6, section 2.2.1.4).
const ekCertificateIndex = 0x01c00002

// EndorsementCertificate returns the manufacturer's certificate of the RSA
// endorsement key, in DER.
func (t *TPM) EndorsementCertificate(ctx context.Context) ([]byte, error) {
	raw, err := t.ReadNV(ctx, ekCertificateIndex)
	if err != nil {
		return nil, fmt.Errorf("certificate of the endorsement key: %w", err)
	}
	var der asn1.RawValue // an index may be larger than what was written into it
	if _, err := asn1.Unmarshal(raw, &der); err != nil {
		return nil, fmt.Errorf("certificate of the endorsement key: %w", err)
	}
	return der.FullBytes, nil
}

// Public returns the TPMT_PUBLIC of the attestation key of a handle, which is
// made if there is none: see [TPM.AttestationKey].
func (t *TPM) Public(ctx context.Context, handle uint32) (public []byte, err error) {
	if _, err := t.AttestationKey(ctx, handle, true); err != nil {
		return nil, err
	}
	err = t.do(ctx, func(dev transport.TPM) error {
		rsp, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(dev)
		if err != nil {
			return fmt.Errorf("attestation key %#x: %w", handle, err)
		}
		public = rsp.OutPublic.Bytes()
		return nil
	})
	return public, err
}

// Activate opens a credential that was made for this TPM's endorsement key and
// for the attestation key of a handle (TPM2_ActivateCredential). The endorsement
// key is made for it anew, from the TPM's own seed, which takes a moment.
func (t *TPM) Activate(ctx context.Context, handle uint32, credential, secret []byte) (opened []byte, err error) {
	err = t.do(ctx, func(dev transport.TPM) (err error) {
		ak, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(dev)
		if err != nil {
			return fmt.Errorf("attestation key %#x: %w", handle, err)
		}
		ek, err := tpm2.CreatePrimary{
			PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
			InPublic:      tpm2.New2B(tpm2.RSAEKTemplate),
		}.Execute(dev)
		if err != nil {
			return fmt.Errorf("make the endorsement key: %w", err)
		}
		defer func() {
			_, flush := tpm2.FlushContext{FlushHandle: ek.ObjectHandle}.Execute(dev)
			err = errors.Join(err, flush)
		}()
		rsp, err := tpm2.ActivateCredential{
			ActivateHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(handle), Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
			KeyHandle:      tpm2.AuthHandle{Handle: ek.ObjectHandle, Name: ek.Name, Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, endorsementPolicy)},
			CredentialBlob: tpm2.TPM2BIDObject{Buffer: credential},
			Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret},
		}.Execute(dev)
		if err != nil {
			return fmt.Errorf("activate the credential: %w", err)
		}
		opened = rsp.CertInfo.Buffer
		return nil
	})
	return opened, err
}

// endorsementPolicy is what the endorsement key's template asks of its user.
func endorsementPolicy(dev transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{
		AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		PolicySession: session, NonceTPM: nonce,
	}.Execute(dev)
	return err
}
