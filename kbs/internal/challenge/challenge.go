// Package challenge lets a broker forget the handshakes that it opened: what it
// must know again when the evidence arrives travels sealed in the session
// cookie. Whoever only asks for challenges leaves nothing behind in the store,
// and any replica can take an answer to a challenge that another one gave.
//
// A cookie proves that a broker of this tenant gave the challenge, nothing
// more. That it is answered once is for the caller to see to, who finds in
// [Challenge.Key] one name for it that cannot be written in two ways.
package challenge

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// MaxCookie bounds a cookie, in bytes of its text. Clients keep cookies of up
// to 4096 bytes with their name and attributes (RFC 6265, section 6.1).
const MaxCookie = 3 << 10

// ErrCookie is wrapped by every refusal of a cookie.
var ErrCookie = errors.New("the cookie names no open handshake")

// Challenge is what a broker decided when a handshake was opened.
type Challenge struct {
	Platform string    `json:"p"` // as kbs-protocol 3.8 spells it
	Version  string    `json:"v"` // of the protocol that the guest speaks
	Nonce    string    `json:"n"` // the text that is hashed
	Hash     string    `json:"h"` // wire name of the hash that binds the evidence
	Policy   string    `json:"a"` // attestation policy, without class
	Ceremony string    `json:"c"` // names the handshake in audit entries; the token's id
	Expires  time.Time `json:"-"` // whole seconds

	id [sha256.Size]byte // of the sealed bytes
}

// Key names the challenge in the store. It tells nothing of the cookie.
func (c Challenge) Key() string { return hex.EncodeToString(c.id[:]) }

// The sealed form: a version, the number of the key, the expiry in Unix
// seconds, and the JSON under AES-256-GCM, whose associated data is all that
// goes before.
const (
	form     = 1
	headSize = 1 + 4 + 8
)

// Seal returns the cookie of a challenge, and the challenge as Open will give
// it back.
func (s *Sealer) Seal(ctx context.Context, c Challenge) (string, Challenge, error) {
	keys, err := s.keys(ctx)
	if err != nil {
		return "", Challenge{}, err
	}
	text, err := json.Marshal(c)
	if err != nil {
		return "", Challenge{}, fmt.Errorf("challenge: %w", err)
	}
	head := make([]byte, headSize, headSize+len(text)+64)
	head[0] = form
	binary.BigEndian.PutUint32(head[1:], uint32(keys.epoch))
	binary.BigEndian.PutUint64(head[5:], uint64(c.Expires.Unix()))
	sealed := keys.of(keys.epoch).Seal(head, nil, text, s.bound(head))
	cookie := base64.RawURLEncoding.EncodeToString(sealed)
	if len(cookie) > MaxCookie {
		return "", Challenge{}, fmt.Errorf("challenge: the cookie has %d bytes, at most %d", len(cookie), MaxCookie)
	}
	c.Expires, c.id = time.Unix(c.Expires.Unix(), 0).UTC(), sha256.Sum256(sealed)
	return cookie, c, nil
}

// Open returns the challenge of a cookie that has not expired. An error that
// does not wrap [ErrCookie] is a failure to get the keys.
func (s *Sealer) Open(ctx context.Context, cookie string) (Challenge, error) {
	sealed, err := decode(cookie)
	if err != nil {
		return Challenge{}, err
	}
	keys, err := s.keys(ctx)
	if err != nil {
		return Challenge{}, err
	}
	head, rest := sealed[:headSize], sealed[headSize:]
	aead := keys.of(int64(binary.BigEndian.Uint32(head[1:])))
	if head[0] != form || aead == nil {
		return Challenge{}, fmt.Errorf("%w: it is of another time or form", ErrCookie)
	}
	text, err := aead.Open(nil, nil, rest, s.bound(head))
	if err != nil {
		return Challenge{}, fmt.Errorf("%w: it was not sealed here", ErrCookie)
	}
	c := Challenge{Expires: time.Unix(int64(binary.BigEndian.Uint64(head[5:])), 0).UTC(), id: sha256.Sum256(sealed)}
	if err := json.Unmarshal(text, &c); err != nil {
		return Challenge{}, fmt.Errorf("%w: %w", ErrCookie, err)
	}
	if !s.now().Before(c.Expires) {
		return Challenge{}, fmt.Errorf("%w: it expired", ErrCookie)
	}
	return c, nil
}

// decode accepts one text for one sequence of bytes: two spellings of a cookie
// would be two names of one challenge.
func decode(cookie string) ([]byte, error) {
	if len(cookie) > MaxCookie || strings.ContainsAny(cookie, "\r\n") {
		return nil, fmt.Errorf("%w: malformed", ErrCookie)
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(cookie)
	if err != nil || len(sealed) < headSize {
		return nil, fmt.Errorf("%w: malformed", ErrCookie)
	}
	return sealed, nil
}
