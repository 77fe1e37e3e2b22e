package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// maxCheckpoint is the size of a checkpoint in bytes: a tree's size and hash,
// and some signatures of witnesses.
const maxCheckpoint = 16 << 10

// errStranger says that an entry is of a log that the root does not name.
var errStranger = errors.New("it is in a log that is not trusted")

// check verifies that the log recorded the entry: by its promise, by the proof
// of inclusion, by both if it has both. The time that it returns is zero unless
// the log vouches for it, which only a promise does.
func (r *Root) checkEntry(e Entry) (time.Time, error) {
	l, ok := find(r.logs, e.LogID)
	if !ok {
		return time.Time{}, errStranger
	}
	if e.Promise == nil && e.Proof == nil {
		return time.Time{}, errors.New("neither a promise nor a proof of the log")
	}
	var at time.Time
	if e.Promise != nil {
		if err := l.checkPromise(e); err != nil {
			return at, err
		}
		if e.Integrated > 0 {
			at = time.Unix(e.Integrated, 0)
			if !l.valid.holds(at) {
				return at, fmt.Errorf("the log's key did not count at %s", at.UTC().Format(time.RFC3339))
			}
		}
	}
	if e.Proof != nil {
		if err := e.Proof.check(e.Body); err != nil {
			return at, fmt.Errorf("inclusion proof: %w", err)
		}
		if err := l.checkCheckpoint(*e.Proof); err != nil {
			return at, fmt.Errorf("checkpoint: %w", err)
		}
	}
	return at, nil
}

// checkPromise verifies a signed entry timestamp: over the canonical JSON
// (RFC 8785) of the entry without its proofs.
func (l log) checkPromise(e Entry) error {
	signed := fmt.Appendf(nil, `{"body":"%s","integratedTime":%d,"logID":"%x","logIndex":%d}`,
		base64.StdEncoding.EncodeToString(e.Body), e.Integrated, e.LogID, e.Index)
	if !verify(l.key, signed, e.Promise) {
		return errors.New("the log did not sign the entry's timestamp (SET)")
	}
	return nil
}

// check computes the tree's root from the leaf up (RFC 9162, section 2.1.3.2).
func (p Proof) check(body []byte) error {
	if p.Index < 0 || p.Index >= p.Size {
		return fmt.Errorf("entry %d of a tree of %d", p.Index, p.Size)
	}
	// The path follows the tree's right border where the leaf's and the last
	// leaf's ways to the root have joined.
	inner := bits.Len64(uint64(p.Index) ^ uint64(p.Size-1))
	border := bits.OnesCount64(uint64(p.Index) >> inner)
	if len(p.Path) != inner+border || len(p.Path) > maxPath {
		return fmt.Errorf("%d hashes, a tree of %d needs %d", len(p.Path), p.Size, inner+border)
	}
	sum := leafHash(body)
	for i, h := range p.Path {
		if len(h) != sha256.Size {
			return errors.New("a hash of another size")
		}
		if i < inner && (p.Index>>i)&1 == 0 {
			sum = nodeHash(sum, h)
		} else {
			sum = nodeHash(h, sum)
		}
	}
	if !bytes.Equal(sum, p.Root) {
		return errors.New("it does not lead to the tree's root")
	}
	return nil
}

func leafHash(body []byte) []byte { return hash(crypto.SHA256, append([]byte{0}, body...)) }

func nodeHash(left, right []byte) []byte {
	return hash(crypto.SHA256, append(append([]byte{1}, left...), right...))
}

// checkCheckpoint verifies that the log signed the tree of a proof. A
// checkpoint is a signed note (c2sp.org/tlog-checkpoint): origin, size, root,
// then after an empty line signatures, of which one must be the log's.
func (l log) checkCheckpoint(p Proof) error {
	if len(p.Checkpoint) > maxCheckpoint {
		return fmt.Errorf("%d bytes, at most %d are read", len(p.Checkpoint), maxCheckpoint)
	}
	text, signatures, ok := strings.Cut(p.Checkpoint, "\n\n")
	if !ok {
		return errors.New("it is not a signed note")
	}
	text += "\n"
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[0] == "" {
		return errors.New("it has no origin, size and root")
	}
	if lines[1] != strconv.FormatInt(p.Size, 10) || lines[2] != base64.StdEncoding.EncodeToString(p.Root) {
		return errors.New("it is of another tree")
	}
	for line := range strings.Lines(signatures) {
		name, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "\u2014 ")
		at := strings.LastIndexByte(name, ' ')
		if !found || at < 0 {
			return errors.New("a signature line of another shape")
		}
		sig, err := base64.StdEncoding.DecodeString(name[at+1:])
		if err != nil || len(sig) < 5 {
			return errors.New("a signature line of another shape")
		}
		if bytes.Equal(sig[:4], l.id[:4]) && verify(l.key, []byte(text), sig[4:]) {
			return nil
		}
	}
	return errors.New("the log did not sign it")
}

// verify checks a signature of a log with the hash that goes with its key.
func verify(key crypto.PublicKey, message, sig []byte) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		h := crypto.SHA256
		if k.Curve == elliptic.P384() {
			h = crypto.SHA384
		}
		return ecdsa.VerifyASN1(k, hash(h, message), sig)
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, sig)
	case *rsa.PublicKey:
		return k.N.BitLen() >= 2048 && rsa.VerifyPKCS1v15(k, crypto.SHA256, hash(crypto.SHA256, message), sig) == nil
	}
	return false
}

// hash is nil for an algorithm that is not supported.
func hash(h crypto.Hash, b []byte) []byte {
	switch h {
	case crypto.SHA256:
		s := sha256.Sum256(b)
		return s[:]
	case crypto.SHA384:
		s := sha512.Sum384(b)
		return s[:]
	case crypto.SHA512:
		s := sha512.Sum512(b)
		return s[:]
	default:
		return nil
	}
}
