package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Claims are those of a verified token. They are shared by all requests that
// bring it, and nobody changes them.
type Claims struct {
	// ID is the jti of a token of our own. Foreign tokens may have none, or any:
	// theirs is made from the hash of the text.
	ID      string
	Issuer  string
	Foreign bool // of an issuer that the configuration trusts
	Expires time.Time
	Raw     json.RawMessage // the complete payload, which resource policies read
	Submods map[string]AppraisalClaims

	teeKeys []string // pointers to the guest's key, of a foreign token
	memo    *memo
}

// AppraisalClaims are the members of a submod that the broker itself reads.
type AppraisalClaims struct {
	Status   Status          `json:"ear.status"`
	PolicyID string          `json:"ear.appraisal-policy-id"`
	Evidence json.RawMessage `json:"ear.veraison.annotated-evidence"`
}

// memo keeps what was made of claims, for as long as they are remembered.
type memo struct {
	parse  sync.Once
	parsed any
	perr   error

	find sync.Once
	key  api.JWK
	kerr error
}

// Parsed returns what parse made of the payload the first time. A policy
// engine has its own form of it, and guests come back with the same token.
// Every caller must pass the same function.
func (c Claims) Parsed(parse func(json.RawMessage) (any, error)) (any, error) {
	if c.memo == nil {
		return parse(c.Raw)
	}
	c.memo.parse.Do(func() { c.memo.parsed, c.memo.perr = parse(c.Raw) })
	return c.memo.parsed, c.memo.perr
}

// Pointers to the guest's key in the tokens of the field's issuers, in the
// order in which they are tried (kbs-protocol 5.2).
var fieldTEEKeys = []string{
	"/tdx/attester_runtime_data/tee-pubkey",
	"/tdx/attester_user_data/tee-pubkey",
	"/customized_claims/runtime_data/tee-pubkey",
	pointerTEEKey,
	"/tee-pubkey",
}

// pointerTEEKey is where our own tokens have it.
const pointerTEEKey = "/submods/" + CPU + "/" + memberEvidence + "/runtime_data_claims/tee-pubkey"

// TEEKey returns the guest's public key.
func (c Claims) TEEKey() (api.JWK, error) {
	if c.memo == nil {
		return c.teeKey()
	}
	c.memo.find.Do(func() { c.memo.key, c.memo.kerr = c.teeKey() })
	return c.memo.key, c.memo.kerr
}

func (c Claims) teeKey() (api.JWK, error) {
	pointers := c.teeKeys
	if pointers == nil {
		pointers = []string{pointerTEEKey}
	}
	for _, p := range pointers {
		raw, ok := at(c.Raw, p)
		if !ok {
			continue
		}
		var key api.JWK
		if err := json.Unmarshal(raw, &key); err != nil || key.Kty == "" {
			return api.JWK{}, fmt.Errorf("what the token has at %s is not a key", p)
		}
		return key, nil
	}
	return api.JWK{}, errors.New("token has no tee-pubkey")
}

// at returns the value that a JSON pointer (RFC 6901) points to.
func at(raw json.RawMessage, pointer string) (json.RawMessage, bool) {
	rest, ok := strings.CutPrefix(pointer, "/")
	if !ok {
		return raw, pointer == ""
	}
	for name := range strings.SplitSeq(rest, "/") {
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		var object map[string]json.RawMessage
		var array []json.RawMessage
		if json.Unmarshal(raw, &object) == nil && object != nil {
			if raw, ok = object[name]; !ok {
				return nil, false
			}
			continue
		}
		i, err := strconv.Atoi(name)
		if err != nil || json.Unmarshal(raw, &array) != nil || i < 0 || i >= len(array) {
			return nil, false
		}
		raw = array[i]
	}
	return raw, string(raw) != "null"
}
