package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// readSigner reads a private key: PKCS#8 in PEM, as 'openssl genpkey' writes.
func (c *cli) readSigner(path string) (crypto.Signer, error) {
	block, err := c.readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(block)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a key of type %T does not sign", path, key)
	}
	return signer, nil
}

// readPublicKey reads a public key in PEM, as 'openssl pkey -pubout' writes.
func (c *cli) readPublicKey(path string) (crypto.PublicKey, error) {
	block, err := c.readPEM(path, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(block)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func (c *cli) readPEM(path, kind string) ([]byte, error) {
	raw, err := c.readFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s is not a %s in PEM", path, kind)
	}
	return block.Bytes, nil
}
