package crypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// The one form of PKCS#7 (RFC 2315) that ocicrypt writes: enveloped data, the
// content key under RSA with the padding of PKCS#1 v1.5, the content under
// AES-GCM. Nothing else is read. The libraries for all of PKCS#7 also open DES
// and CBC, whose padding is an oracle, and choose the cipher by a global
// variable; this is less code than a wall around them (docs/adr/0027).
var (
	oidData      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEnveloped = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3}
	oidRSA       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidAES128GCM = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 6}
	oidAES256GCM = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 46}
)

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content envelope `asn1:"explicit,tag:0"`
}

type envelope struct {
	Version    int
	Recipients []certRecipientInfo `asn1:"set"`
	Content    encryptedContent
}

type certRecipientInfo struct {
	Version   int
	ID        issuerAndSerial
	Algorithm pkix.AlgorithmIdentifier
	Key       []byte
}

type issuerAndSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

type encryptedContent struct {
	Type      asn1.ObjectIdentifier
	Algorithm pkix.AlgorithmIdentifier
	Data      asn1.RawValue `asn1:"tag:0,optional"` // [0]: the bytes, or from older writers an octet string
}

// gcmParameters are written with a tag of their own for the nonce, inside
// another sequence, where RFC 5084 has neither.
type gcmParameters struct {
	Nonce []byte `asn1:"tag:4"`
	Tag   int
}

type certRecipient struct {
	cert *x509.Certificate
	key  *rsa.PublicKey
}

func newCertRecipient(doc []byte) (Recipient, error) {
	if block, _ := pem.Decode(doc); block != nil {
		doc = block.Bytes
	}
	cert, err := x509.ParseCertificate(doc)
	if err != nil {
		return nil, errors.New("a PKCS#7 recipient needs a certificate, PEM or DER")
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || key.N.BitLen() < minRSA {
		return nil, fmt.Errorf("a PKCS#7 recipient needs an RSA key of %d bits or more", minRSA)
	}
	return certRecipient{cert: cert, key: key}, nil
}

func (r certRecipient) String() string { return "pkcs7 " + fingerprint(r.key) }

func (r certRecipient) Wrap(private secret.Bytes) (WrappedKey, error) {
	key := secret.Random(16)
	defer key.Destroy()
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		return WrappedKey{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return WrappedKey{}, err
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce) // crypto/rand.Read never fails
	params, err := asn1.Marshal(gcmParameters{Nonce: nonce, Tag: aead.Overhead()})
	if err != nil {
		return WrappedKey{}, err
	}
	wrapped, err := rsa.EncryptPKCS1v15(rand.Reader, r.key, key.Reveal()) //nolint:staticcheck // the only key transport that the format's readers know
	if err != nil {
		return WrappedKey{}, fmt.Errorf("wrap for %s: %w", r, err)
	}
	packet, err := asn1.Marshal(contentInfo{Type: oidEnveloped, Content: envelope{
		Recipients: []certRecipientInfo{{
			ID:        issuerAndSerial{Issuer: asn1.RawValue{FullBytes: r.cert.RawIssuer}, Serial: r.cert.SerialNumber},
			Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidRSA}, Key: wrapped,
		}},
		Content: encryptedContent{
			Type:      oidData,
			Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidAES128GCM, Parameters: asn1.RawValue{Tag: asn1.TagSequence, Bytes: params}},
			Data:      asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, Bytes: aead.Seal(nil, nonce, private.Reveal(), nil)},
		},
	}})
	return WrappedKey{Scheme: SchemePKCS7, Packet: packet}, err
}

// unwrapPKCS7 tries every key for every recipient, without a look at the
// certificates that are named.
func (k *Keyring) unwrapPKCS7(packet []byte) (secret.Bytes, error) {
	e, err := parseEnvelope(packet)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("PKCS#7 packet: %w", err)
	}
	for _, r := range e.recipients {
		for _, key := range k.decrypters() {
			if _, away := key.(keptKey); away {
				continue // see AddDecrypter
			}
			// Go gives a key drawn at random instead of an error for a wrong padding, so
			// that all that does not open looks, and lasts, the same.
			content, err := key.Decrypt(rand.Reader, r.Key, &rsa.PKCS1v15DecryptOptions{SessionKeyLen: e.keySize}) //nolint:staticcheck // as above
			if err != nil {
				continue
			}
			plain, err := e.open(content)
			clear(content)
			if err == nil {
				return secret.New(plain), nil
			}
		}
	}
	return secret.Bytes{}, fmt.Errorf("%w the PKCS#7 packet", ErrNoKey)
}

// openable is an envelope of the one supported form.
type openable struct {
	recipients  []certRecipientInfo
	keySize     int
	nonce, data []byte
}

func parseEnvelope(packet []byte) (*openable, error) {
	var doc contentInfo
	rest, err := asn1.Unmarshal(packet, &doc)
	if err != nil || len(rest) > 0 || !doc.Type.Equal(oidEnveloped) {
		return nil, errors.New("not enveloped data")
	}
	c := doc.Content.Content
	o := &openable{recipients: doc.Content.Recipients}
	switch {
	case c.Algorithm.Algorithm.Equal(oidAES128GCM):
		o.keySize = 16
	case c.Algorithm.Algorithm.Equal(oidAES256GCM):
		o.keySize = 32
	default:
		return nil, fmt.Errorf("content cipher %s is not supported: only AES-GCM authenticates what it wraps", c.Algorithm.Algorithm)
	}
	if len(o.recipients) == 0 || len(o.recipients) > maxPackets {
		return nil, fmt.Errorf("%d recipients: 1 to %d are possible", len(o.recipients), maxPackets)
	}
	for _, r := range o.recipients {
		if !r.Algorithm.Algorithm.Equal(oidRSA) {
			return nil, fmt.Errorf("key transport %s is not supported", r.Algorithm.Algorithm)
		}
	}
	var params gcmParameters
	if rest, err := asn1.Unmarshal(c.Algorithm.Parameters.Bytes, &params); err != nil || len(rest) > 0 || len(params.Nonce) != gcmIVSize || params.Tag != gcmTagSize {
		return nil, errors.New("the parameters of AES-GCM are not well formed")
	}
	o.nonce, o.data = params.Nonce, c.Data.Bytes
	if c.Data.IsCompound {
		if rest, err := asn1.Unmarshal(c.Data.Bytes, &o.data); err != nil || len(rest) > 0 {
			return nil, errors.New("the content is not one octet string")
		}
	}
	return o, nil
}

func (o *openable) open(key []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, o.nonce, o.data, nil)
}
