package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Keys. An id has slashes but no "@", so the versions of one policy are never
// among those of another.
const (
	keyHead       = "policy/head/"      // kind/id: head
	keyVersion    = "policy/version/"   // kind/id@0000000001: version
	keyGeneration = "policy/generation" // rewritten with every change of a head
	keyShadow     = "policy/shadow/"    // kind/id@0000000001: api.ShadowReport
	keyDecision   = "policy/decision/"  // kind/digest: api.Decision
)

func headKey(kind Kind, id string) string { return keyHead + string(kind) + "/" + id }

func versionPrefix(kind Kind, id string) string { return keyVersion + string(kind) + "/" + id + "@" }

func versionKey(kind Kind, id string, n int64) string {
	return fmt.Sprintf("%s%010d", versionPrefix(kind, id), n)
}

func shadowKey(kind Kind, id string, n int64) string {
	return fmt.Sprintf("%s%s/%s@%010d", keyShadow, kind, id, n)
}

// head says which versions of a policy play which part.
type head struct {
	Latest  int64 `json:"latest"`
	Enforce int64 `json:"enforce,omitempty"`
	Shadow  int64 `json:"shadow,omitempty"`
	// ShadowSum is the digest of the shadow's text; that of the version in
	// force is in About.
	ShadowSum string `json:"shadow_sha256,omitempty"`
	Deleted   bool   `json:"deleted,omitempty"` // and nothing was written since
	// Past are the versions that were in force once, ascending.
	Past []int64 `json:"past,omitempty"`
	// About is the version that the policy shows, see shown.
	About about `json:"about"`
}

// shown is the version that reads show and writes compare: the one in force,
// or else the newest; 0 if the policy was deleted.
func (h head) shown() int64 {
	switch {
	case h.Enforce != 0:
		return h.Enforce
	case h.Deleted:
		return 0
	}
	return h.Latest
}

func (h head) stage(n int64) string {
	switch {
	case n == h.Enforce:
		return api.StageEnforce
	case n == h.Shadow:
		return api.StageShadow
	case slices.Contains(h.Past, n):
		return api.StageRetired
	}
	return api.StageDraft
}

// retire takes the version in force out of it.
func (h *head) retire() {
	if h.Enforce == 0 {
		return
	}
	if i, found := slices.BinarySearch(h.Past, h.Enforce); !found {
		h.Past = slices.Insert(h.Past, i, h.Enforce)
	}
	h.Enforce = 0
}

// enforce puts a version into force.
func (h *head) enforce(n int64) {
	if h.Enforce != n {
		h.retire()
	}
	h.Enforce, h.Deleted = n, false
}

// about is what is known of a version beside its text.
type about struct {
	Author string    `json:"author,omitempty"`
	Time   time.Time `json:"time"`
	SHA256 string    `json:"sha256,omitempty"`
	Note   string    `json:"note,omitempty"`
}

// version is one version as stored. It is written once.
type version struct {
	about
	Rego    string `json:"rego"`
	Deleted bool   `json:"deleted,omitempty"`
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// readHead returns an empty head for a policy that never was.
func readHead(tx store.Tx, kind Kind, id string) (head, error) {
	r, err := tx.Get(headKey(kind, id))
	if errors.Is(err, store.ErrNotFound) {
		return head{}, nil
	}
	if err != nil {
		return head{}, err
	}
	return decodeHead(r)
}

func decodeHead(r store.Record) (head, error) {
	var h head
	if err := json.Unmarshal(r.Value, &h); err != nil {
		return h, fmt.Errorf("policy record %q: %w", r.Key, err)
	}
	return h, nil
}

// writeHead also starts a new generation, by which every engine on every
// replica notices.
func writeHead(tx store.Tx, kind Kind, id string, h head) error {
	if err := putJSON(tx, headKey(kind, id), h); err != nil {
		return err
	}
	_, err := tx.Put(keyGeneration, []byte("{}"), store.Any)
	return err
}

func putJSON(tx store.Tx, key string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	_, err = tx.Put(key, raw, store.Any)
	return err
}

func readVersion(tx store.Tx, kind Kind, id string, n int64) (version, error) {
	r, err := tx.Get(versionKey(kind, id, n))
	if err != nil {
		return version{}, err
	}
	var v version
	if err := json.Unmarshal(r.Value, &v); err != nil {
		return v, fmt.Errorf("policy record %q: %w", r.Key, err)
	}
	return v, nil
}

// splitHead reads kind and id out of the key of a head.
func splitHead(key string) (Kind, string, error) {
	kind, id, ok := strings.Cut(strings.TrimPrefix(key, keyHead), "/")
	if !ok {
		return "", "", fmt.Errorf("policy record %q has no kind", key)
	}
	return Kind(kind), id, nil
}

// each calls f for every record under a prefix, in the order of the keys.
func each(tx store.Tx, prefix string, f func(store.Record) error) error {
	const page = 500
	for after := ""; ; {
		rs, err := tx.List(prefix, after, page)
		if err != nil {
			return err
		}
		for _, r := range rs {
			if err := f(r); err != nil {
				return err
			}
		}
		if len(rs) < page {
			return nil
		}
		after = rs[len(rs)-1].Key
	}
}
