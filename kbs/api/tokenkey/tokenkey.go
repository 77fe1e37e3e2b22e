// Package tokenkey is what kbsctl and kbs-pkcs11 say to each other about one
// key pair of a PKCS#11 token (ADR 49).
//
// kbsctl starts "kbs-pkcs11 open" and speaks first, over the child's standard
// input and output, in JSON documents of one line each: an [Open], answered by an
// [Opened], and then, by the use that it named, any number of [Decrypt], each
// answered by a [Decrypted], or of [Sign], each answered by a [Signed], until the
// input ends. A key that was opened for the one is not used for the other. The
// PIN goes that way because arguments and environments are seen by others.
// Whoever holds the two pipes is the only one who can ask.
package tokenkey

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

const (
	// MaxLine bounds one document, in bytes.
	MaxLine = 64 << 10
	// MaxMessage bounds a message that is signed as it is, in bytes.
	MaxMessage = 32 << 10
)

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

// Sign asks for a signature. ECDSA, in ASN.1, and RSA sign a digest by SHA-2;
// Ed25519 hashes in its own way, and twice (RFC 8032 section 5.1.6), so it is
// given the message.
type Sign struct {
	Hash    string `json:"hash,omitempty"` // SHA256, SHA384 or SHA512, of Digest
	Digest  []byte `json:"digest,omitempty"`
	PSS     bool   `json:"pss,omitempty"`     // RSASSA-PSS, with MGF1 of the same hash and a salt as long; else PKCS#1 v1.5
	Message []byte `json:"message,omitempty"` // for Ed25519, up to MaxMessage
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
	if err := decode(line, v); err != nil {
		return errors.New("not a document of this protocol") // what the library says may quote a secret
	}
	return nil
}

// decode reads one object that has no members but those of v. It makes no copy of
// the line, as a [json.Decoder] does: that would outlive the PIN.
func decode(line []byte, v any) error {
	members, err := strictjson.CheckedMembers(line)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeOf(v).Elem()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); !f.Anonymous {
			known[name] = true
		}
	}
	for name := range members {
		if !known[name] {
			return errors.New("another member")
		}
	}
	return json.Unmarshal(line, v)
}
