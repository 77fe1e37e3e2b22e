// Package cca is Arm's Confidential Compute Architecture: what a realm's token
// says, what it is worth, and a platform to try it without one.
//
// A token has two parts (RMM specification A7.2). The platform's is signed by
// the machine's own key (CPAK), which no certificate vouches for: who trusts
// a machine lists its key, by instance id, in a trust store. The realm's is
// signed by a key that the realm management monitor made at boot (RAK), and the
// platform's part holds that key's hash. So a verifier walks from the trust
// store to the platform, and from the platform to the realm.
package cca

import (
	"crypto/ecdsa"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
)

// Tags and labels of the outer collection. The first form is that of the RMM
// specification 1.0, the second of its later editions and of
// draft-ffm-rats-cca-token-02: each part in a record with its content format.
const (
	tagCollection = 399
	tagCMW        = 907
	labelPlatform = 44234
	labelRealm    = 44241
	formatCWT     = 263 // CoAP content format of application/eat+cwt
)

// MaxTokenSize bounds a token, in bytes. Real ones have two to four thousand.
const MaxTokenSize = 64 << 10

// ErrToken is wrapped by every refusal to read a token.
var ErrToken = errors.New("malformed CCA token")

// Token is a token taken apart, not believed yet.
type Token struct {
	Platform Platform
	Realm    Realm
	// The signed messages as they came.
	platform, realm *cose.Sign1Message
}

// strict refuses what two readers could take for two things, and what only
// wants to be large.
var strict = mustDecMode(cbor.DecOptions{
	DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
	MaxNestedLevels: 8, MaxArrayElements: 64, MaxMapPairs: 64,
})

func mustDecMode(o cbor.DecOptions) cbor.DecMode {
	mode, err := o.DecMode()
	if err != nil {
		panic(err) // constants
	}
	return mode
}

// ParseToken reads a token in either outer form.
func ParseToken(raw []byte) (*Token, error) {
	if len(raw) > MaxTokenSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrToken, len(raw), MaxTokenSize)
	}
	parts, err := collection(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	var t Token
	if t.platform, err = sign1(parts[labelPlatform]); err == nil {
		err = t.Platform.decode(t.platform.Payload)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: platform: %w", ErrToken, err)
	}
	if t.realm, err = sign1(parts[labelRealm]); err == nil {
		err = t.Realm.decode(t.realm.Payload)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: realm: %w", ErrToken, err)
	}
	return &t, nil
}

// collection returns the signed messages under their labels. Both must be
// there, and nothing else: what is not signed has nothing to say here.
func collection(raw []byte) (map[uint64][]byte, error) {
	var tag cbor.RawTag
	if err := strict.Unmarshal(raw, &tag); err != nil {
		return nil, err
	}
	if tag.Number != tagCollection && tag.Number != tagCMW {
		return nil, fmt.Errorf("tag %d, want %d or %d", tag.Number, tagCollection, tagCMW)
	}
	var entries map[uint64]cbor.RawMessage
	if err := strict.Unmarshal(tag.Content, &entries); err != nil {
		return nil, err
	}
	out := map[uint64][]byte{}
	for label, entry := range entries {
		if label != labelPlatform && label != labelRealm {
			return nil, fmt.Errorf("an entry %d, which is not known", label)
		}
		part, err := part(tag.Number, entry)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", label, err)
		}
		out[label] = part
	}
	if len(out) != 2 {
		return nil, fmt.Errorf("%d parts, want that of the platform and that of the realm", len(out))
	}
	return out, nil
}

// part returns the bytes of one signed message.
func part(tag uint64, entry cbor.RawMessage) (b []byte, err error) {
	if tag == tagCollection {
		err = strict.Unmarshal(entry, &b)
		return b, err
	}
	var record struct {
		_      struct{} `cbor:",toarray"`
		Format uint64
		Value  []byte
	}
	if err := strict.Unmarshal(entry, &record); err != nil {
		return nil, err
	}
	if record.Format != formatCWT {
		return nil, fmt.Errorf("content format %d, want %d", record.Format, formatCWT)
	}
	return record.Value, nil
}

// sign1 reads a COSE_Sign1 with its tag. Its payload must be inside, and its
// protected header must name the algorithm and nothing that a reader would
// have to understand.
func sign1(raw []byte) (*cose.Sign1Message, error) {
	var m cose.Sign1Message
	if err := m.UnmarshalCBOR(raw); err != nil {
		return nil, err
	}
	if len(m.Payload) == 0 {
		return nil, errors.New("the payload is detached")
	}
	if _, err := m.Headers.Protected.Algorithm(); err != nil {
		return nil, fmt.Errorf("protected header: %w", err)
	}
	if _, ok := m.Headers.Protected[cose.HeaderLabelCritical]; ok {
		return nil, errors.New("protected header: critical parameters are not known")
	}
	return &m, nil
}

// verifySign1 checks a message against a key. The algorithm is that of the
// key's curve; a message that names another was not signed with it.
func verifySign1(m *cose.Sign1Message, key *ecdsa.PublicKey) error {
	alg, err := algorithmOf(key)
	if err != nil {
		return err
	}
	verifier, err := cose.NewVerifier(alg, key)
	if err != nil {
		return err
	}
	return m.Verify(nil, verifier)
}
