package main

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/build"
)

// secureBootFlags name who signs what firmware starts, and the keys of the
// machines that it is to start on.
type secureBootFlags struct{ key, certificate, variables string }

func (f *secureBootFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringVar(&f.key, "secureboot-key", "", "`FILE` with the RSA key that signs the image for Secure Boot: PEM, PKCS#8")
	s.StringVar(&f.certificate, "secureboot-cert", "", "`FILE` with the certificate of that key, in PEM")
	s.StringVar(&f.variables, "secureboot-variables", "", "`DIR` with PK.esl, KEK.esl, db.esl and perhaps dbx.esl of the machines, to predict PCR 7 by")
	cmd.MarkFlagsRequiredTogether("secureboot-key", "secureboot-cert")
}

// signer reads who signs; nil is nobody.
func (f *secureBootFlags) signer() (*build.Signer, error) {
	if f.key == "" {
		return nil, nil
	}
	key, err := given.Signer(f.key)
	if err != nil {
		return nil, err
	}
	certificate, err := given.Certificate(f.certificate)
	return &build.Signer{Key: key, Certificate: certificate}, err
}

// keys reads the machines' variables, by the names of their files; nil is none.
func (f *secureBootFlags) keys() (map[string][]byte, error) {
	if f.variables == "" {
		return nil, nil
	}
	if f.key == "" {
		return nil, errors.New("--secureboot-variables is of machines that start signed images only: give --secureboot-key and --secureboot-cert")
	}
	files := map[string][]byte{}
	_, err := boot.ReadSecureBoot(variablesIn(f.variables, files))
	return files, err
}

// variablesIn reads variables out of a folder, and remembers those that are there.
func variablesIn(dir string, files map[string][]byte) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		raw, err := given.File(filepath.Join(dir, name), efi.MaxSignatures)
		if err == nil && files != nil {
			files[name] = raw
		}
		if errors.Is(err, fs.ErrNotExist) && name != boot.FileDBX {
			err = errors.Join(err, errors.New("such a file is made of a certificate by: sbsiglist --owner GUID --type x509 --output "+name+" CERTIFICATE.der"))
		}
		return raw, err
	}
}
