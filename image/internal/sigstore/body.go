package sigstore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// A Signed is a signature that was verified, in the terms in which logs record
// it.
type Signed struct {
	Message Content // what is under the signature
	Payload Content // what a DSSE envelope carries; none: no envelope
	Sig     []byte
	Key     crypto.PublicKey // that verified it
	// Certificate has that key; nil: the key was given.
	Certificate *x509.Certificate
}

// The entries that logs keep of signatures: hashedrekord and dsse, of Rekor's
// versions 1 (0.0.1) and 2 (0.0.2).
type bodyDoc struct {
	Version string          `json:"apiVersion"`
	Kind    string          `json:"kind"`
	Spec    json.RawMessage `json:"spec"`
}

type hashed1 struct {
	Data struct {
		Hash hash1 `json:"hash"`
	} `json:"data"`
	Signature struct {
		Content []byte `json:"content"`
		Key     struct {
			Content []byte `json:"content"` // PEM
		} `json:"publicKey"`
	} `json:"signature"`
}

type hash1 struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"value"`
}

type dsse1 struct {
	PayloadHash hash1 `json:"payloadHash"`
	Signatures  []struct {
		Sig      []byte `json:"signature"`
		Verifier []byte `json:"verifier"` // PEM
	} `json:"signatures"`
}

type hashed2 struct {
	Record *struct {
		Data      hash2      `json:"data"`
		Signature signature2 `json:"signature"`
	} `json:"hashedRekordV002"`
}

type dsse2 struct {
	Envelope *struct {
		PayloadHash hash2        `json:"payloadHash"`
		Signatures  []signature2 `json:"signatures"`
	} `json:"dsseV002"`
}

type hash2 struct {
	Algorithm string `json:"algorithm"`
	Digest    []byte `json:"digest"`
}

type signature2 struct {
	Content  []byte `json:"content"`
	Verifier struct {
		Certificate *certificateDoc `json:"x509Certificate"`
		Key         *certificateDoc `json:"publicKey"`
	} `json:"verifier"`
}

var errOther = errors.New("the log recorded another signature")

// matches verifies that an entry's body is about this signature: the same
// digest, the same signature, the same certificate or key.
func (s Signed) matches(body []byte) error {
	if _, err := strictjson.Parse(body); err != nil {
		return fmt.Errorf("the entry's body: %w", err)
	}
	var doc bodyDoc
	if err := json.Unmarshal(body, &doc); err != nil {
		return fmt.Errorf("the entry's body: %w", err)
	}
	var ok bool
	var err error
	switch doc.Kind + " " + doc.Version {
	case "hashedrekord 0.0.1":
		var d hashed1
		err = json.Unmarshal(doc.Spec, &d)
		ok = d.Data.Hash.of(s.Message) && s.made(d.Signature.Content, fromPEM(d.Signature.Key.Content))
	case "dsse 0.0.1":
		var d dsse1
		err = json.Unmarshal(doc.Spec, &d)
		ok = !s.Payload.None() && d.PayloadHash.of(s.Payload) && len(d.Signatures) == 1 && s.made(d.Signatures[0].Sig, fromPEM(d.Signatures[0].Verifier))
	case "hashedrekord 0.0.2":
		var d hashed2
		err = json.Unmarshal(doc.Spec, &d)
		ok = d.Record != nil && d.Record.Data.of(s.Message) && s.made(d.Record.Signature.Content, d.Record.Signature.verifier())
	case "dsse 0.0.2":
		var d dsse2
		err = json.Unmarshal(doc.Spec, &d)
		ok = !s.Payload.None() && d.Envelope != nil && d.Envelope.PayloadHash.of(s.Payload) && len(d.Envelope.Signatures) == 1 &&
			s.made(d.Envelope.Signatures[0].Content, d.Envelope.Signatures[0].verifier())
	default:
		return fmt.Errorf("entries of kind %.40q, version %.20q, are not supported", doc.Kind, doc.Version)
	}
	if err != nil {
		return fmt.Errorf("the entry's body: %w", err)
	}
	if !ok {
		return errOther
	}
	return nil
}

// made compares the signature and who made it.
func (s Signed) made(sig []byte, by verifier) bool {
	if !bytes.Equal(sig, s.Sig) {
		return false
	}
	if s.Certificate != nil {
		return by.certificate && bytes.Equal(by.der, s.Certificate.Raw)
	}
	der, err := x509.MarshalPKIXPublicKey(s.Key)
	return err == nil && !by.certificate && bytes.Equal(by.der, der)
}

// A verifier is a certificate or a public key, DER.
type verifier struct {
	certificate bool
	der         []byte
}

func fromPEM(b []byte) verifier {
	block, rest := pem.Decode(b)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 || block.Type != "CERTIFICATE" && block.Type != "PUBLIC KEY" {
		return verifier{}
	}
	return verifier{certificate: block.Type == "CERTIFICATE", der: block.Bytes}
}

func (s signature2) verifier() verifier {
	switch v := s.Verifier; {
	case v.Certificate != nil && v.Key == nil:
		return verifier{certificate: true, der: v.Certificate.Raw}
	case v.Key != nil && v.Certificate == nil:
		return verifier{der: v.Key.Raw}
	}
	return verifier{}
}

func (h hash1) of(c Content) bool {
	sum := c.Sum(map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}[h.Algorithm])
	return sum != nil && h.Value == hex.EncodeToString(sum)
}

func (h hash2) of(c Content) bool {
	sum := c.Sum(map[string]crypto.Hash{"SHA2_256": crypto.SHA256, "SHA2_384": crypto.SHA384, "SHA2_512": crypto.SHA512}[h.Algorithm])
	return sum != nil && bytes.Equal(h.Digest, sum)
}
