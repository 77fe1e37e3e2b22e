package kms

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// document is a credential that is a JSON object. Members that are not read are
// the vendor's business.
type document map[string]json.RawMessage

func parseDocument(raw secret.Bytes) (document, error) {
	members, err := strictjson.CheckedMembers(raw.Reveal())
	if err != nil {
		return nil, fault.Newf(fault.Unauthenticated, "the credential is not a JSON object") // quotes nothing of it
	}
	return members, nil
}

// secret copies a text member; empty if it is not there or no text.
func (d document) secret(name string) secret.Bytes {
	text, err := strictjson.Text(d[name])
	if err != nil {
		return secret.Bytes{}
	}
	return secret.Copy(text)
}

// text is a member that is not secret.
func (d document) text(name string) string {
	text, err := strictjson.Text(d[name])
	if err != nil {
		return ""
	}
	return string(text)
}

// maxRSA bounds a private key in bytes: one of 8192 bits has 4,700. Larger ones
// cost more time to check than anybody's is worth.
const maxRSA = 8 << 10

// parseRSA reads a private key in PKCS #8 or PKCS #1.
func parseRSA(der []byte) (*rsa.PrivateKey, error) {
	if len(der) > maxRSA {
		return nil, errors.New("the key is too large")
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an RSA key")
	}
	return private, nil
}
