package main

import (
	"crypto"

	"github.com/vouchsafe-cc/vouchsafe/given"
)

// readSigner reads a private key: PKCS#8 in PEM, as 'openssl genpkey' writes. What
// comes over stdin has no owner.
func (c *cli) readSigner(path string) (crypto.Signer, error) {
	if path != "-" {
		return given.Signer(path)
	}
	raw, err := given.Reader(c.in, "stdin", given.MaxKey)
	if err != nil {
		return nil, err
	}
	return given.ParseSigner("stdin", raw)
}

// readPublicKey reads a public key in PEM, as 'openssl pkey -pubout' writes.
func (c *cli) readPublicKey(path string) (crypto.PublicKey, error) {
	if path != "-" {
		return given.PublicKey(path)
	}
	raw, err := given.Reader(c.in, "stdin", given.MaxKey)
	if err != nil {
		return nil, err
	}
	return given.ParsePublicKey("stdin", raw)
}
