package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"time"
)

// work is the cryptography of an answer, with keys made for one run.
type work struct {
	key       *ecdsa.PrivateKey // of TLS and of tokens
	report    *ecdsa.PrivateKey // the chip's
	signature []byte            // of signed
	guest     *ecdh.PublicKey
}

// What is signed has the size of an SNP report's signed part and of a token.
var (
	signed [672]byte
	token  [4096]byte
)

func newWork() (w work, err error) {
	if w.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return w, err
	}
	if w.report, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader); err != nil {
		return w, err
	}
	sum := sha512.Sum384(signed[:])
	if w.signature, err = ecdsa.SignASN1(rand.Reader, w.report, sum[:]); err != nil {
		return w, err
	}
	guest, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return w, err
	}
	w.guest = guest.PublicKey()
	return w, nil
}

func (w work) certificate() (tls.Certificate, error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &w.key.PublicKey, w.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: w.key}, err
}

func (w work) verify() error {
	sum := sha512.Sum384(signed[:])
	if !ecdsa.VerifyASN1(&w.report.PublicKey, sum[:], w.signature) {
		return errors.New("the report's signature does not verify")
	}
	return nil
}

func (w work) sign() error {
	sum := sha256.Sum256(token[:])
	_, err := ecdsa.SignASN1(rand.Reader, w.key, sum[:])
	return err
}

func (w work) agree() error {
	ephemeral, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	_, err = ephemeral.ECDH(w.guest)
	return err
}

func (w work) seal() error {
	content := make([]byte, 32)
	_, _ = rand.Read(content)
	block, err := aes.NewCipher(content)
	if err != nil {
		return err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return err
	}
	aead.Seal(nil, nil, signed[:32], nil)
	return nil
}

// attestAll serves one attestation's worth of cryptography per connection.
func (w work) attestAll(ln net.Listener) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() { _ = w.attest(conn) }() // who asked finds out
	}
}

func (w work) attest(conn net.Conn) (err error) {
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return err
	}
	if err := errors.Join(w.verify(), w.sign(), w.agree()); err != nil {
		return err
	}
	_, err = conn.Write([]byte{1})
	return err
}

func (w work) release(rw http.ResponseWriter, _ *http.Request) {
	if err := errors.Join(w.agree(), w.seal()); err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = rw.Write(signed[:256]) // about what a sealed key of 32 bytes takes
}
