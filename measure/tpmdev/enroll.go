package tpmdev

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/vouchsafe-cc/vouchsafe/measure/ek"
)

// ErrNoEndorsement means that the TPM has no certificate of an endorsement key of
// any kind that is built.
var ErrNoEndorsement = errors.New("the TPM has no certificate of an endorsement key")

// Endorsement returns the manufacturer's certificate of an endorsement key in
// DER, and the kind of the key: that of the given name, or without one the first
// of [ek.Templates] that the TPM has a certificate of. The key is made to see that
// it is the one of the certificate. Another, which the certificate of another TPM
// or a template of the manufacturer's own explains, is refused with
// [ek.ErrMismatch].
func (t *TPM) Endorsement(ctx context.Context, name string) (kind ek.Template, der []byte, err error) {
	kinds := ek.Templates()
	if name != "" {
		if kind, err = ek.Find(name); err != nil {
			return kind, nil, err
		}
		kinds = []ek.Template{kind}
	}
	for _, kind = range kinds {
		der, err = t.endorsementCertificate(ctx, kind)
		if errors.Is(err, ErrNoIndex) {
			continue
		}
		if err == nil {
			err = t.makes(ctx, kind, der)
		}
		if err != nil {
			return kind, nil, fmt.Errorf("the endorsement key of template %s: %w", kind.Name, err)
		}
		return kind, der, nil
	}
	var looked []string
	for _, k := range kinds {
		looked = append(looked, fmt.Sprintf("%#x (%s, %s)", k.Index, k.Name, k.Kind()))
	}
	return kind, nil, fmt.Errorf("%w in NV index %s", ErrNoEndorsement, strings.Join(looked, ", "))
}

func (t *TPM) endorsementCertificate(ctx context.Context, kind ek.Template) ([]byte, error) {
	raw, err := t.ReadNV(ctx, kind.Index)
	if err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	var der asn1.RawValue // an index may be larger than what was written into it
	if _, err := asn1.Unmarshal(raw, &der); err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	return der.FullBytes, nil
}

// makes checks that the TPM makes the key of a certificate from a template.
func (t *TPM) makes(ctx context.Context, kind ek.Template, der []byte) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("its certificate: %w", err)
	}
	return t.do(ctx, func(dev transport.TPM) error {
		return withEndorsement(dev, kind, func(_ tpm2.AuthHandle, made *tpm2.TPMTPublic) error {
			err := kind.Certified(cert, made)
			for _, index := range kind.Overrides {
				if _, absent := openIndex(dev, index); err != nil && absent == nil {
					return fmt.Errorf("%w; the manufacturer's own template, in NV index %#x, is not built", err, index)
				}
			}
			return err
		})
	})
}

// withEndorsement runs f with an endorsement key, which is made for it anew, from
// the TPM's own seed. That takes a moment.
func withEndorsement(dev transport.TPM, kind ek.Template, f func(tpm2.AuthHandle, *tpm2.TPMTPublic) error) (err error) {
	made, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(kind.Public()),
	}.Execute(dev)
	if err != nil {
		return fmt.Errorf("make the endorsement key of template %s, %s: %w", kind.Name, kind.Kind(), err)
	}
	defer func() {
		_, flush := tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(dev)
		err = errors.Join(err, flush)
	}()
	public, err := made.OutPublic.Contents()
	if err != nil {
		return err
	}
	auth := tpm2.PasswordAuth(nil)
	if !kind.Password() {
		auth = tpm2.Policy(tpm2.TPMAlgSHA256, 16, endorsementPolicy)
	}
	return f(tpm2.AuthHandle{Handle: made.ObjectHandle, Name: made.Name, Auth: auth}, public)
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

// Activate opens a credential that was made for this TPM's endorsement key of a
// kind and for the attestation key of a handle (TPM2_ActivateCredential).
func (t *TPM) Activate(ctx context.Context, handle uint32, kind ek.Template, credential, secret []byte) (opened []byte, err error) {
	err = t.do(ctx, func(dev transport.TPM) error {
		ak, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(dev)
		if err != nil {
			return fmt.Errorf("attestation key %#x: %w", handle, err)
		}
		return withEndorsement(dev, kind, func(endorsement tpm2.AuthHandle, _ *tpm2.TPMTPublic) error {
			rsp, err := tpm2.ActivateCredential{
				ActivateHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(handle), Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
				KeyHandle:      endorsement,
				CredentialBlob: tpm2.TPM2BIDObject{Buffer: credential},
				Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret},
			}.Execute(dev)
			if err != nil {
				return fmt.Errorf("activate the credential: %w", err)
			}
			opened = rsp.CertInfo.Buffer
			return nil
		})
	})
	return opened, err
}

// endorsementPolicy is what the low range's templates ask of a key's user.
func endorsementPolicy(dev transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{
		AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		PolicySession: session, NonceTPM: nonce,
	}.Execute(dev)
	return err
}
