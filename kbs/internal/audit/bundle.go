package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// BundleType is the media type of a [Bundle], and names its version.
const BundleType = "application/vnd.vouchsafe.audit-proof.v1+json"

// MaxBundle bounds a bundle, in bytes.
const MaxBundle = 2 << 20

// ErrBundle says that a bundle is malformed.
var ErrBundle = errors.New("audit: invalid proof")

// Bundle proves that one entry is in the log, to anybody who has a key of the
// log and nothing else.
type Bundle struct {
	MediaType  string          `json:"media_type"`
	Entry      json.RawMessage `json:"entry"`
	Proof      [][]byte        `json:"proof"`               // RFC 6962 section 2.1.1
	Checkpoint string          `json:"checkpoint"`          // a signed note
	Handovers  []string        `json:"handovers,omitempty"` // of the signing key
}

// Encode returns the bundle as a file.
func (b Bundle) Encode() ([]byte, error) {
	b.MediaType = BundleType
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(b)
	return out.Bytes(), err
}

// ParseBundle reads what Encode wrote. Its errors wrap [ErrBundle].
func ParseBundle(raw []byte) (Bundle, error) {
	var b Bundle
	if len(raw) > MaxBundle {
		return b, fmt.Errorf("%w: %d bytes", ErrBundle, len(raw))
	}
	if err := strictjson.Decode(raw, &b); err != nil {
		return Bundle{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if b.MediaType != BundleType {
		return Bundle{}, fmt.Errorf("%w: its media type is %.100q", ErrBundle, b.MediaType)
	}
	if len(b.Entry) == 0 || b.Checkpoint == "" || len(b.Proof) > 64 {
		return Bundle{}, fmt.Errorf("%w: it is not complete", ErrBundle)
	}
	return b, nil
}

// Verify checks the bundle against the key that trust has, and returns the
// checkpoint that vouches for the entry.
func (b Bundle) Verify(trust Trust) (Checkpoint, error) {
	trust, err := trust.Follow(b.Handovers)
	if err != nil {
		return Checkpoint{}, err
	}
	if err := VerifyInclusion(b.Entry, []byte(b.Checkpoint), b.Proof, trust); err != nil {
		return Checkpoint{}, err
	}
	return ParseCheckpoint([]byte(b.Checkpoint), trust)
}
