package trust

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/jsonstream"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// Limits of attestations that are not held, in bytes.
const (
	maxBulk  = 32 << 20  // of one
	maxBulks = 96 << 20  // of all of one place beside one manifest
	maxFrame = 512 << 10 // of what is around a payload, and around a predicate
)

// A bulk is an attestation that is too large to be held, for example all that an
// image consists of. It is fetched twice: what is signed begins with its own
// length, which is known at its end. No part of it is remembered but its frame,
// and what conditions ask for.
type bulk struct {
	src   registry.Source
	desc  ocispec.Descriptor
	path  []string // of the payload, in base64
	parse func(frame []byte) (Signature, error)

	opened bool
	length int64     // of the payload
	sig    Signature // what it says of itself
}

// A streamed payload is one that passed by.
type streamed struct {
	statement statement
	message   sigstore.Content // that was signed
	payload   sigstore.Content
	seen      map[string]string // see attestation.judge
	reason    string
}

// A carriageError says that the bytes did not arrive, or were other ones than the
// registry had announced.
type carriageError struct{ err error }

func (e *carriageError) Error() string { return e.err.Error() }
func (e *carriageError) Unwrap() error { return e.err }

// open reads what the attestation is about, once.
func (b *bulk) open(ctx context.Context) error {
	if b.opened {
		return nil
	}
	var s streamed
	err := b.read(ctx, func(payload io.Reader) (err error) {
		in := &counter{r: payload}
		s.statement, err = streamStatement(in, (*jsonstream.Scanner).Skip)
		b.length = in.n
		return err
	})
	if err == nil {
		b.opened, b.sig.stream = true, &s
	}
	return err
}

// weigh reads the attestation again, and says what was signed and what of the
// conditions holds. Whose signature it is, it does not say.
func (b *bulk) weigh(ctx context.Context, a attestation) (Signature, error) {
	var s *streamed
	err := b.read(ctx, func(payload io.Reader) (err error) {
		s = &streamed{reason: a.unmet()}
		message := map[crypto.Hash]hash.Hash{crypto.SHA256: sha256.New(), crypto.SHA384: sha512.New384(), crypto.SHA512: sha512.New()}
		bare := map[crypto.Hash]hash.Hash{crypto.SHA256: sha256.New()}
		signed := io.MultiWriter(message[crypto.SHA256], message[crypto.SHA384], message[crypto.SHA512])
		if _, err := signed.Write(preamble(PayloadTypeInToto, b.length)); err != nil {
			return err
		}
		in := &counter{r: io.TeeReader(payload, io.MultiWriter(signed, bare[crypto.SHA256]))}
		s.statement, err = streamStatement(in, func(predicate *jsonstream.Scanner) (err error) {
			s.seen, s.reason, err = a.look(predicate)
			return err
		})
		if err == nil && in.n != b.length {
			err = fmt.Errorf("it has %d bytes, and had %d", in.n, b.length)
		}
		s.message, s.payload = sums(message), sums(bare)
		return err
	})
	sig := b.sig
	sig.stream = s
	return sig, err
}

func sums(of map[crypto.Hash]hash.Hash) sigstore.Content {
	all := map[crypto.Hash][]byte{}
	for name, h := range of {
		all[name] = h.Sum(nil)
	}
	return sigstore.Hashed(all)
}

// read fetches the attestation, lets visit read the payload to its end, and parses
// the frame. Where a mirror sent something else it does so again.
func (b *bulk) read(ctx context.Context, visit func(payload io.Reader) error) error {
	for {
		err := b.once(ctx, visit)
		if err == nil || !registry.Elsewhere(b.src, b.desc, err) {
			return err
		}
	}
}

func (b *bulk) once(ctx context.Context, visit func(payload io.Reader) error) error {
	blob, err := b.src.Blob(ctx, b.desc)
	if err != nil {
		return &carriageError{err}
	}
	defer func() { _ = blob.Close() }() // only read from
	in := &counter{r: blob}
	s := jsonstream.New(in)
	frame, found, err := s.Carve(b.path, `"AA=="`, maxFrame, func() error {
		text, err := s.Reader()
		if err != nil {
			return err
		}
		return visit(base64.NewDecoder(base64.StdEncoding, text))
	})
	if err != nil { // bytes that nobody announced have the better reason
		_, _ = io.Copy(io.Discard, in)
	}
	switch {
	case in.err != nil:
		return &carriageError{in.err}
	case err != nil:
		return err
	case !found:
		return errors.New("it has no payload")
	}
	stream := b.sig.stream
	b.sig, err = b.parse(frame)
	b.sig.Payload, b.sig.stream = nil, stream
	return err
}

// counter counts what is read, and remembers why there was no more.
type counter struct {
	r   io.Reader
	n   int64
	err error
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// streamStatement reads an in-toto statement to the end of r; predicate reads the
// predicate.
func streamStatement(r io.Reader, predicate func(*jsonstream.Scanner) error) (statement, error) {
	s := jsonstream.New(r)
	frame, _, err := s.Carve([]string{"predicate"}, "null", maxFrame, func() error { return predicate(s) })
	if err != nil {
		return statement{}, fmt.Errorf("in-toto statement: %w", err)
	}
	return parseStatement(frame)
}

// size says how large it is, in words.
func (b *bulk) size() string { return fmt.Sprintf("an attestation or bundle of %d bytes", b.desc.Size) }

// bulk judges one that is about this image, if it is worth it.
func (e *evaluation) bulk(ctx context.Context, t *tally, v voucher, b *bulk) error {
	err := b.open(ctx)
	if err == nil && b.sig.stream.statement.predicateType != t.rule.attested.predicateType {
		return nil
	}
	sig := b.sig
	if err == nil && t.about(b.sig.stream.statement) != nil {
		sig, err = b.weigh(ctx, *t.rule.attested)
	}
	if _, carriage := errors.AsType[*carriageError](err); carriage {
		return err
	}
	if err != nil {
		t.seen = append(t.seen, fmt.Sprintf("%s that cannot be read (%v)", b.size(), err))
		return nil
	}
	who, reason := signer{}, ""
	if !sig.stream.message.None() { // that of another image is not worth the work
		who, reason = v.judge(ctx, sig)
	}
	t.attest(who, reason, sig)
	return nil
}
