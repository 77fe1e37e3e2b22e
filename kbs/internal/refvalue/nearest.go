package refvalue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// nearEnough is how much of a text must agree before it is worth a mention,
// in characters. Digests agree in the first few by chance.
const nearEnough = 8

// Match is the registered value closest to one that was seen.
type Match struct {
	Name    string
	Exact   bool // the seen value is registered under this name
	Expired bool // and would have been good, were it in force
}

// index holds all texts in order, so that what is nearest to one is beside it.
// It is made anew when a value changed and somebody asks.
type index struct {
	mu    sync.Mutex
	epoch store.Version // 0: never made
	texts []indexed
}

type indexed struct {
	text               string // in lower case
	name               string
	notBefore, expires time.Time
}

// Nearest returns the value under the prefix that is closest to a seen text,
// for the explanation of a refusal: a value that is exactly the seen one,
// though under another name or expired, before one that merely starts like it.
// It looks at texts and at texts in arrays, and ignores case. The name is
// empty if nothing is near.
func (r *Registry) Nearest(ctx context.Context, prefix, seen string) (Match, error) {
	if seen == "" {
		return Match{}, nil
	}
	texts, err := r.indexed(ctx)
	if err != nil {
		return Match{}, err
	}
	seen = strings.ToLower(seen)
	at, _ := slices.BinarySearchFunc(texts, seen, func(i indexed, s string) int { return strings.Compare(i.text, s) })
	now := r.now()
	var best Match
	bestScore := 0
	look := func(i indexed) (going bool) {
		n := common(seen, i.text)
		exact := n == len(seen) && n == len(i.text)
		if n < nearEnough && !exact {
			return false
		}
		m := Match{Name: i.name, Exact: exact, Expired: now.Before(i.notBefore) || !now.Before(i.expires)}
		score := 4 * n
		if m.Exact {
			score += 2
		}
		if !m.Expired {
			score++
		}
		if strings.HasPrefix(i.name, prefix) && score > bestScore {
			best, bestScore = m, score
		}
		return 4*n+3 > bestScore // farther away, less agrees
	}
	for i := at; i < len(texts) && look(texts[i]); i++ {
	}
	for i := at - 1; i >= 0 && look(texts[i]); i-- {
	}
	return best, nil
}

// indexed returns the index as of now.
func (r *Registry) indexed(ctx context.Context) ([]indexed, error) {
	x := &r.index
	x.mu.Lock()
	defer x.mu.Unlock()
	var epoch store.Version
	var texts []indexed
	err := r.st.View(ctx, func(tx store.Tx) error {
		rec, err := tx.Get(keyEpoch)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		epoch, texts = rec.Version, nil
		if epoch == x.epoch {
			return nil
		}
		return walk(tx, func(name string, s stored) {
			for _, from := range s.Sources {
				for _, t := range textsIn(from.Value) {
					texts = append(texts, indexed{strings.ToLower(t), name, from.NotBefore, from.Expires})
				}
			}
		})
	})
	if err != nil {
		return nil, err
	}
	if epoch != x.epoch {
		slices.SortFunc(texts, func(a, b indexed) int {
			return cmp.Or(strings.Compare(a.text, b.text), strings.Compare(a.name, b.name))
		})
		x.epoch, x.texts = epoch, texts
	}
	return x.texts, nil
}

// walk visits every record, in one snapshot.
func walk(tx store.Tx, visit func(name string, s stored)) error {
	for after := ""; ; {
		records, err := tx.List(prefixValue, after, page)
		if err != nil {
			return err
		}
		for _, record := range records {
			s, err := decode(record)
			if err != nil {
				return err
			}
			visit(record.Key[len(prefixValue):], s)
		}
		if len(records) < page {
			return nil
		}
		after = records[len(records)-1].Key
	}
}

// textsIn returns the strings in a value.
func textsIn(raw json.RawMessage) []string {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}
	}
	var many []any
	if json.Unmarshal(raw, &many) != nil {
		return nil
	}
	var out []string
	for _, v := range many {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// common returns the length of the common prefix.
func common(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
