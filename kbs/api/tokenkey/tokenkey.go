// Package tokenkey is what kbsctl and kbs-pkcs11 say to each other about one
// RSA key pair of a PKCS#11 token (ADR 49).
//
// kbsctl starts "kbs-pkcs11 open" and speaks first, over the child's standard
// input and output, in JSON documents of one line each: an [Open], answered by an
// [Opened], and then any number of [Decrypt], each answered by a [Decrypted],
// until the input ends. The PIN goes that way because arguments and environments
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
	Module string `json:"module"`           // path of the token's library
	Token  string `json:"token"`            // label
	Object string `json:"object,omitempty"` // label of the key; or
	ID     []byte `json:"id,omitempty"`     // its CKA_ID; both if both are given
	PIN    []byte `json:"pin"`
}

// Opened tells of the key, or why there is none.
type Opened struct {
	Public []byte `json:"public,omitempty"` // SubjectPublicKeyInfo, DER
	Error  string `json:"error,omitempty"`
}

// The hashes of OAEP, which the mask function uses too. There is no label.
const (
	SHA1   = "sha1"
	SHA256 = "sha256"
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
