package keyprovider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Params is what a user writes behind the provider's name:
// "provider:NAME:keyid=kbs:///a/b/c::keypath=FILE" (guest-protocol 12).
type Params struct {
	KeyID   string // resource URI; empty: one that nobody has yet
	KeyPath string // file with the 32 bytes of the key; empty: a key drawn at random
}

// ParseParams reads parameters. What the field's provider knows and this one
// does not do is refused, not ignored.
func ParseParams(text string) (Params, error) {
	var p Params
	if text == "" || text == "Enabled" { // what ocicrypt passes for a provider without parameters
		return p, nil
	}
	for part := range strings.SplitSeq(text, "::") {
		name, value, ok := strings.Cut(part, "=")
		switch {
		case !ok || value == "":
			return p, fmt.Errorf("parameter %.80q is not NAME=VALUE", part)
		case name == "keyid" && p.KeyID == "":
			kid, err := crypt.NormalizeKID(value)
			if err != nil {
				return p, err
			}
			p.KeyID = kid
		case name == "keypath" && p.KeyPath == "":
			p.KeyPath = value
		case name == "algorithm" && value == "A256GCM", name == "sample" && value == "false":
		case name == "sample":
			return p, errors.New("sample=true: a key that everybody knows protects nothing")
		case name == "algorithm":
			return p, fmt.Errorf("algorithm %.40q is not written: only A256GCM authenticates what it wraps", value)
		default:
			return p, fmt.Errorf("parameter %.80q is not known, or there twice: keyid, keypath, algorithm", name)
		}
	}
	return p, nil
}

// ErrQuestion is a question that cannot be read.
var ErrQuestion = errors.New("malformed question")

// A Provider answers questions. It is safe for concurrent use if its functions
// are.
type Provider struct {
	// Names are those by which the user may call the provider in --encryption-key.
	Names []string
	// Recipient finds, or makes, the key that a layer is wrapped with.
	Recipient func(ctx context.Context, p Params) (crypt.Recipient, error)
	// Unwrapper opens packets; nil: this provider only wraps.
	Unwrapper crypt.KeyUnwrapper
}

// Answer answers one question. want, unless empty, is the only operation that
// may be asked for. The answer to an unwrap holds a layer's key.
func (p *Provider) Answer(ctx context.Context, want Operation, raw []byte) ([]byte, error) {
	q, err := parseQuestion(raw)
	if err != nil {
		return nil, fmt.Errorf("key provider: %w: %w", ErrQuestion, err)
	}
	defer clear(q.options)
	if want != "" && q.op != want {
		return nil, fmt.Errorf("key provider: asked for %s and to %s", want, q.op)
	}
	if q.op == Wrap {
		return p.wrap(ctx, q)
	}
	if p.Unwrapper == nil {
		return nil, errors.New("key provider: nothing can be unwrapped here")
	}
	doc, err := p.Unwrapper.Unwrap(ctx, crypt.WrappedKey{Scheme: crypt.SchemeProvider, Packet: q.annotation})
	if err != nil {
		return nil, err
	}
	defer doc.Destroy()
	return unwrapAnswer(doc.Reveal())
}

func (p *Provider) wrap(ctx context.Context, q question) ([]byte, error) {
	var mine []octets
	for name, list := range q.parameters {
		if slices.Contains(p.Names, name) {
			mine = append(mine, list...)
		}
	}
	if len(mine) != 1 {
		return nil, fmt.Errorf("key provider: %d sets of parameters for %s: one is possible", len(mine), strings.Join(p.Names, " or "))
	}
	params, err := ParseParams(string(mine[0]))
	if err != nil {
		return nil, fmt.Errorf("key provider: %w", err)
	}
	doc := secret.Copy(q.options)
	defer doc.Destroy()
	private, err := crypt.ParsePrivate(doc) // nothing else is wrapped
	if err != nil {
		return nil, fmt.Errorf("key provider: %w", err)
	}
	private.Key.Destroy()
	r, err := p.Recipient(ctx, params)
	if err != nil {
		return nil, err
	}
	w, err := r.Wrap(doc)
	if err != nil {
		return nil, err
	}
	return wrapAnswer(w.Packet)
}

// Exec answers the one question that in holds.
func (p *Provider) Exec(ctx context.Context, in io.Reader, out io.Writer) error {
	raw, err := io.ReadAll(io.LimitReader(in, MaxMessage+1))
	if err != nil {
		return fmt.Errorf("read the question: %w", err)
	}
	defer clear(raw)
	answer, err := p.Answer(ctx, "", raw)
	if err != nil {
		return err
	}
	defer clear(answer)
	_, err = out.Write(answer)
	return err
}
