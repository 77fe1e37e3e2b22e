// Package simdir keeps the directories of simulated vendors and guests: files
// that are written once, and private keys in PEM that only their owner reads.
// Every platform's simulator lays out its own files with it.
package simdir

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Modes of files.
const (
	Private = 0o600 // keys
	Public  = 0o644
)

const pemPrivateKey = "PRIVATE KEY"

// File is one file of a directory.
type File struct {
	Name string
	Data []byte
	Mode os.FileMode
}

// Write makes the directory and writes files that must not exist yet, in
// order, and stops at the first that fails. What tells that a directory is
// whole comes last.
func Write(dir string, files ...File) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, o := range files {
		f, err := os.OpenFile(filepath.Join(dir, o.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, o.Mode)
		if err != nil {
			return err
		}
		_, err = f.Write(o.Data)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Key returns the file of a private key: PKCS#8 in PEM.
func Key(name string, key crypto.Signer) (File, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return File{}, err
	}
	return File{Name: name, Data: pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), Mode: Private}, nil
}

// ReadECDSA reads a private key that [Key] wrote.
func ReadECDSA(dir, name string) (*ecdsa.PrivateKey, error) {
	return ReadKey[*ecdsa.PrivateKey](dir, name)
}

// ReadKey reads a private key of a kind that [Key] wrote.
func ReadKey[K crypto.Signer](dir, name string) (none K, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return none, err
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != pemPrivateKey {
		return none, fmt.Errorf("%s is not a private key in PEM", name)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return none, fmt.Errorf("%s: %w", name, err)
	}
	k, ok := key.(K)
	if !ok {
		return none, fmt.Errorf("%s: a key of type %T, want %T", name, key, none)
	}
	return k, nil
}

// JSON returns a file with a value, for a person to read.
func JSON(name string, v any) (File, error) {
	raw, err := json.MarshalIndent(v, "", "  ")
	return File{Name: name, Data: append(raw, '\n'), Mode: Public}, err
}

// ReadJSON reads a file that [JSON] wrote. A member that comes twice is an
// error, and so is one that v does not have.
func ReadJSON(dir, name string, v any) error {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := errors.Join(strictjson.Decode(raw, v), dec.Decode(v)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Read reads a file whole.
func Read(dir, name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) }
