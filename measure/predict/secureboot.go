package predict

import (
	"crypto/x509"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/measure/authenticode"
	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
)

// secureBoot completes what is known of Secure Boot by whose signature is on the
// image that the firmware starts.
func (m *material) secureBoot() error {
	if m.uki == nil {
		if m.SecureBoot != nil {
			return errors.New("what a machine with Secure Boot measures is predicted for unified kernel images alone")
		}
		return nil
	}
	p, err := efi.ParsePE(m.UKI)
	if err != nil {
		return err
	}
	if m.SecureBoot == nil {
		if all, err := p.Certificates(); err != nil || len(all) > 0 {
			m.SecureBoot = &boot.SecureBoot{Missing: "the image is signed for Secure Boot, and the keys of the machine are not given"}
		}
		return nil
	}
	signatures, err := authenticode.Read(p)
	if err != nil {
		return err
	}
	known := *m.SecureBoot // the caller's stays as it is
	if known.Authority, err = authority(known, signatures); err != nil {
		return err
	}
	m.SecureBoot = &known
	return nil
}

// authority finds the entry of db by which the image starts: the first certificate
// whose key signed it, or issued the certificate of the key that did.
func authority(s boot.SecureBoot, signatures []authenticode.Signature) ([]byte, error) {
	entries, err := efi.ParseSignatureLists(s.DB)
	if err != nil {
		return nil, err
	}
	for _, signature := range signatures {
		for _, e := range entries {
			if e.Kind != efi.CertX509 {
				continue
			}
			c, err := x509.ParseCertificate(e.Data)
			if err == nil && signature.By(c) {
				return e.SignatureData(), nil
			}
		}
	}
	if len(signatures) == 0 {
		return nil, errors.New("the image is not signed, and the machine starts signed ones only")
	}
	return nil, errors.New("no certificate in db is that of the image's signature: such a machine does not start it")
}
