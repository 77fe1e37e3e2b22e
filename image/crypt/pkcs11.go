package crypt

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // OAEP with SHA-1 is what many tokens know alone
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// pkcs11JSON is ocicrypt's packet for keys in PKCS#11 tokens (docs/pkcs11.md
// there): the private options themselves under RSA-OAEP, once for each
// recipient. It says nothing of a token, so a key that is at hand, or whatever
// else is a [crypto.Decrypter], opens it too.
type pkcs11JSON struct {
	Version    int               `json:"version"`
	Recipients []pkcs11Recipient `json:"recipients"`
}

type pkcs11Recipient struct {
	Version int    `json:"version"`
	Blob    []byte `json:"blob"`
	Hash    string `json:"hash,omitempty"` // older writers leave sha1 away
}

func (r pkcs11Recipient) hash() (crypto.Hash, error) {
	switch r.Hash {
	case "sha256":
		return crypto.SHA256, nil
	case "sha1", "":
		return crypto.SHA1, nil
	}
	return 0, fmt.Errorf("OAEP with %.40q is not supported", r.Hash)
}

type tokenRecipient struct{ key *rsa.PublicKey }

func newTokenRecipient(doc []byte) (Recipient, error) {
	key, _, err := parsePublicKey(doc)
	if err != nil {
		return nil, err
	}
	if k, ok := key.(*rsa.PublicKey); ok {
		return tokenRecipient{key: k}, nil
	}
	return nil, errors.New("a PKCS#11 recipient needs an RSA key")
}

// Wrap uses SHA-1, as ocicrypt does by default: many tokens know no other, and
// what OAEP promises does not rest on the hash resisting collisions.
func (r tokenRecipient) Wrap(private secret.Bytes) (WrappedKey, error) {
	blob, err := rsa.EncryptOAEP(crypto.SHA1.New(), rand.Reader, r.key, private.Reveal(), nil)
	if err != nil {
		return WrappedKey{}, fmt.Errorf("wrap for %s: %w", r, err)
	}
	packet, err := json.Marshal(pkcs11JSON{Recipients: []pkcs11Recipient{{Blob: blob, Hash: "sha1"}}})
	return WrappedKey{Scheme: SchemePKCS11, Packet: packet}, err
}

func (r tokenRecipient) String() string { return "pkcs11 " + fingerprint(r.key) }

func (k *Keyring) unwrapPKCS11(packet []byte) (secret.Bytes, error) {
	var doc pkcs11JSON
	if err := takeAll(packet, map[string]any{"version": &doc.Version, "recipients": &doc.Recipients}); err != nil {
		return secret.Bytes{}, fmt.Errorf("PKCS#11 packet: %w", err)
	}
	if doc.Version != 0 || len(doc.Recipients) == 0 || len(doc.Recipients) > maxPackets {
		return secret.Bytes{}, fmt.Errorf("PKCS#11 packet of version %d for %d recipients is not supported", doc.Version, len(doc.Recipients))
	}
	var errs []error
	for _, r := range doc.Recipients {
		h, err := r.hash()
		if err != nil || r.Version != 0 {
			return secret.Bytes{}, fmt.Errorf("PKCS#11 packet: a recipient of version %d, hash %.20q is not supported", r.Version, r.Hash)
		}
		for _, key := range k.decrypters() {
			plain, err := key.Decrypt(nil, r.Blob, &rsa.OAEPOptions{Hash: h})
			if err == nil {
				return secret.New(plain), nil
			}
			if _, away := key.(keptKey); away { // it may be the token's fault
				errs = append(errs, err)
			}
		}
	}
	return secret.Bytes{}, errors.Join(append([]error{fmt.Errorf("%w the PKCS#11 packet", ErrNoKey)}, errs...)...)
}
