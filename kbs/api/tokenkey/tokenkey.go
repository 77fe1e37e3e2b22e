// Package tokenkey is what kbsctl and kbs-pkcs11 say to each other about one
// key pair of a PKCS#11 token (ADR 49).
//
// kbsctl starts "kbs-pkcs11 open" and speaks first, over the child's standard
// input and output, in JSON documents of one line each: an [Open], answered by an
// [Opened], and then, by the use that it named, any number of [Decrypt], each
// answered by a [Decrypted], or of [Sign], each answered by a [Signed], until the
// input ends. A key that was opened for the one is not used for the other. The PIN goes that way because arguments and environments
// are seen by others. Whoever holds the two pipes is the only one who can ask.
package tokenkey

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// MaxLine bounds one document, in bytes.
const MaxLine = 64 << 10

// Open says which key.
type Open struct {
	Module string `json:"module"` // path of the token's library
	Which
	Object string `json:"object,omitempty"` // label of the key; or
	ID     []byte `json:"id,omitempty"`     // its CKA_ID; both if both are given
	Use    string `json:"use"`              // ToDecrypt or ToSign
	PIN    []byte `json:"pin"`
}

// What a key is opened for.
const (
	ToDecrypt = "decrypt"
	ToSign    = "sign"
)

// Which says which token, by what it says of itself. What is left out fits any,
// and the rest fits one.
type Which struct {
	Token        string `json:"token,omitempty"` // label
	Serial       string `json:"serial,omitempty"`
	Manufacturer string `json:"manufacturer,omitempty"`
	Model        string `json:"model,omitempty"`
	Slot         *uint  `json:"slot,omitempty"` // CK_SLOT_ID
}

// Opened tells of the key, or why there is none.
type Opened struct {
	Public []byte `json:"public,omitempty"` // SubjectPublicKeyInfo, DER
	Error  string `json:"error,omitempty"`
}

// The hashes: the first two of OAEP, which the mask function uses too, without a
// label; all but the first of signatures.
const (
	SHA1   = "sha1"
	SHA256 = "sha256"
	SHA384 = "sha384"
	SHA512 = "sha512"
)

// Decrypt asks for what RSA-OAEP sealed under the public key.
type Decrypt struct {
	Hash   string `json:"hash"`
	Sealed []byte `json:"sealed"`
}

// Decrypted is the answer. An error ends nothing: the next question may be asked.
type Decrypted struct {
	Plain []byte `json:"plain,omitempty"`
	Error string `json:"error,omitempty"`
}

// Sign asks for a signature of a digest by SHA-2: ECDSA in ASN.1, or RSA with
// PKCS#1 v1.5.
type Sign struct {
	Hash   string `json:"hash"` // SHA256, SHA384 or SHA512
	Digest []byte `json:"digest"`
}

// Signed is the answer. An error ends nothing.
type Signed struct {
	Signature []byte `json:"signature,omitempty"`
	Error     string `json:"error,omitempty"`
}

// NewReader returns a reader for [Receive].
func NewReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, MaxLine) }

// Send writes one document.
func Send(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	whole := slices.Concat(line, []byte{'\n'})
	defer clear(line)
	defer clear(whole)
	if len(line) >= MaxLine {
		return fmt.Errorf("a document of %d bytes, at most %d are read", len(line), MaxLine)
	}
	_, err = w.Write(whole)
	return err
}

// Receive reads one document; io.EOF says that there is no further one.
func Receive(r *bufio.Reader, v any) error {
	line, err := r.ReadSlice('\n')
	defer clear(line)
	switch {
	case errors.Is(err, io.EOF) && len(line) == 0:
		return io.EOF
	case errors.Is(err, bufio.ErrBufferFull):
		return fmt.Errorf("a document of more than %d bytes", MaxLine)
	case errors.Is(err, io.EOF): // in the middle of one
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return errors.New("not a document of this protocol") // what the library says may quote a secret
	}
	return nil
}
