package ctl

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tokenkey"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// tokenProgram is who talks to tokens: it alone has cgo (ADR 49).
const tokenProgram = "kbs-pkcs11"

// tokenKey opens a key that a PKCS#11 URI names.
func (c *cli) tokenKey(ctx context.Context, text string, words passwordFlags) (*tokenkey.Key, error) {
	return fromToken(ctx, c, text, words, tokenkey.Open)
}

// fromToken opens a key for one use. Its PIN comes from the file that the URI
// names, from the one password file, or from the terminal, and is tried once:
// tokens lock themselves.
func fromToken[K any](ctx context.Context, c *cli, text string, words passwordFlags,
	open func(ctx context.Context, program string, u tokenkey.URI, pin secret.Bytes, stderr io.Writer) (K, error),
) (K, error) {
	var none K
	u, err := tokenkey.ParseURI(text)
	if err != nil {
		return none, usagef("%w", err).hint("pkcs11:token=LABEL;object=LABEL?module-path=/usr/lib/LIBRARY.so&pin-source=file:/PATH")
	}
	program, err := findTokenProgram()
	if err != nil {
		return none, err
	}
	pin, err := readPIN(u, words)
	if err != nil {
		return none, err
	}
	defer pin.Destroy()
	key, err := open(ctx, program, u, pin, c.stdio.Err)
	if err != nil {
		return none, usagef("%w", err)
	}
	return key, nil
}

// signer is the key of a file, or one that stays in its token. The caller calls
// done when it has signed.
func (c *cli) signer(ctx context.Context, name string, words passwordFlags) (key crypto.Signer, done func(), err error) {
	if tokenkey.IsURI(name) {
		k, err := fromToken(ctx, c, name, words, tokenkey.OpenSigner)
		if err != nil {
			return nil, nil, err
		}
		return k, func() { _ = k.Close() }, nil // what it did was done
	}
	doc, err := words.readKey(name)
	if err != nil {
		return nil, nil, err
	}
	defer doc.Destroy()
	key, err = ship.ParsePrivateKey(doc)
	if err != nil {
		return nil, nil, usagef("%s: %w", name, err)
	}
	return key, func() {}, nil
}

func readPIN(u tokenkey.URI, words passwordFlags) (secret.Bytes, error) {
	switch {
	case u.PIN != "":
		return readPassword(u.PIN)
	case len(words.files) > 1:
		return secret.Bytes{}, usagef("which of the %d password files is the PIN of %s? A token that is tried with all of them locks itself", len(words.files), u).
			hint("&pin-source=file:/PATH in the URI")
	case len(words.files) == 1:
		return readPassword(words.files[0])
	}
	pin, err := askPassword(u.String())
	if err != nil {
		return pin, usagef("%s has a PIN: %w", u, err).hint("&pin-source=file:/PATH in the URI")
	}
	return pin, nil
}

// findTokenProgram looks beside kbsctl, where it was installed, and then where
// the shell would.
func findTokenProgram() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), tokenProgram)
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", usagef("%w", err)
		}
	}
	path, err := exec.LookPath(tokenProgram)
	if err != nil {
		return "", usagef("%s talks to tokens, and is neither beside kbsctl nor on the path: %w", tokenProgram, err).hint("make build-pkcs11")
	}
	return path, nil
}

// tokenPublic returns the public key of a pair in a token, in DER.
func (c *cli) tokenPublic(ctx context.Context, text string) ([]byte, error) {
	key, err := c.tokenKey(ctx, text, passwordFlags{})
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	return der, errors.Join(err, key.Close())
}
