package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/lab"
)

// unavoidable are the signatures in a piece of evidence, but for those of
// certificates: a machine has the same chain for months. What is compared is
// the standard library's verification, also where ours is cheaper (ADR 23).
var unavoidable = map[measure.Platform][]signature{
	measure.SNP:       {p384},
	measure.TDX:       {p256, p256}, // of the quote and of the quoting enclave
	measure.SGX:       {p256, p256},
	measure.AzSNPvTPM: {p384, rsa2048}, // of the report and of the vTPM
	measure.AzTDXvTPM: {p256, p256, rsa2048},
	measure.TPM:       {rsa2048},
	measure.CCA:       {p384, p384}, // of the platform and of the realm
	measure.NVIDIA:    {p384, p384}, // of each GPU: lab.GPUs
}

// verifications compares the verifiers of all platforms whose evidence is
// signed. Chains have been seen before, as they have been in production for
// months.
func verifications(ctx context.Context, dir, only string) ([]comparison, error) {
	var out []comparison
	for _, p := range lab.Platforms() {
		signatures, ok := unavoidable[p]
		if !ok || only != "" && only != string(p) {
			continue
		}
		l, err := lab.Open(p, filepath.Join(dir, string(p)))
		if err != nil {
			return nil, err
		}
		thing, err := verification(ctx, l)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		base, names, err := raw(signatures)
		if err != nil {
			return nil, err
		}
		out = append(out, comparison{name: string(p), bare: names, gate: gateVerify, thing: thing, base: base})
	}
	return out, nil
}

// fresh is how many pieces of evidence take turns.
const fresh = 8

func verification(ctx context.Context, l *lab.Lab) (func() error, error) {
	var all []measure.Evidence
	for range fresh {
		ev, err := l.Evidence(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, ev)
	}
	want, next := l.Expected(), 0
	verify := func() error {
		next++
		_, err := measure.VerifyAll(ctx, l.Trusting, all[next%fresh], want)
		return err
	}
	for range 2 { // the first sees the chain, the second knows it
		if err := verify(); err != nil {
			return nil, err
		}
	}
	return verify, nil
}

// signature makes one, and returns what verifies it.
type signature struct {
	name string
	make func() (func() bool, error)
}

var (
	p256    = signature{"ECDSA P-256", func() (func() bool, error) { return ec(elliptic.P256()) }}
	p384    = signature{"ECDSA P-384", func() (func() bool, error) { return ec(elliptic.P384()) }}
	rsa2048 = signature{"RSA-2048", rsaPKCS1}
)

func raw(signatures []signature) (func() error, string, error) {
	var verify []func() bool
	var names []string
	for _, s := range signatures {
		v, err := s.make()
		if err != nil {
			return nil, "", err
		}
		verify, names = append(verify, v), append(names, s.name)
	}
	return func() error {
		for _, v := range verify {
			if !v() {
				return errors.New("a signature does not verify")
			}
		}
		return nil
	}, strings.Join(names, " + "), nil
}

var digest = sha256.Sum256([]byte("a digest"))

func ec(curve elliptic.Curve) (func() bool, error) {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return nil, err
	}
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	return func() bool { return ecdsa.Verify(&key.PublicKey, digest[:], r, s) }, err
}

func rsaPKCS1() (func() bool, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	return func() bool { return rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], sig) == nil }, err
}
