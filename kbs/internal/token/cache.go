package token

import (
	"container/list"
	"context"
	"crypto/sha256"
	"sync"
	"time"
)

// Bounds of the verified tokens that a replica remembers. What policies made
// of a token is kept with it and is some five times its size.
const (
	cacheTokens = 1024
	cacheBytes  = 2 << 20 // of payloads
)

// verdicts remembers tokens that were verified, by the hash of their text,
// with what was made of them. A verdict counts until its token expires, and
// only while the key that signed is still trusted.
type verdicts struct {
	mu    sync.Mutex
	by    map[[sha256.Size]byte]*list.Element
	used  *list.List // of *verdict; the last used comes first
	bytes int
}

type verdict struct {
	text    [sha256.Size]byte
	claims  Claims
	trusted func(context.Context) bool
}

func newVerdicts() *verdicts {
	return &verdicts{by: map[[sha256.Size]byte]*list.Element{}, used: list.New()}
}

// get returns the claims of a token that is still good.
func (v *verdicts) get(ctx context.Context, text [sha256.Size]byte, now time.Time) (Claims, bool) {
	v.mu.Lock()
	e, ok := v.by[text]
	if ok {
		v.used.MoveToFront(e)
	}
	v.mu.Unlock()
	if !ok {
		return Claims{}, false
	}
	hit := e.Value.(*verdict)
	// Asking may mean reading a key set: not under the lock.
	if !now.Before(hit.claims.Expires.Add(leeway)) || !hit.trusted(ctx) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.by[text] == e {
			v.drop(e)
		}
		return Claims{}, false
	}
	return hit.claims, true
}

func (v *verdicts) put(d *verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.by[d.text]; ok || len(d.claims.Raw) > cacheBytes/4 {
		return // one token must not crowd out all others
	}
	v.by[d.text] = v.used.PushFront(d)
	v.bytes += len(d.claims.Raw)
	for v.used.Len() > cacheTokens || v.bytes > cacheBytes {
		v.drop(v.used.Back())
	}
}

func (v *verdicts) drop(e *list.Element) {
	d := v.used.Remove(e).(*verdict)
	delete(v.by, d.text)
	v.bytes -= len(d.claims.Raw)
}
