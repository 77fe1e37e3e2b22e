package refvalue

import (
	"context"
	"encoding/json"
	"strings"
)

// nearEnough is how much of a text must agree before it is worth a mention,
// in characters. Digests agree in the first few by chance.
const nearEnough = 8

// Match is the registered value closest to one that was seen.
type Match struct {
	Name    string
	Exact   bool // the seen value is registered under this name
	Expired bool // and would have been good, had it not expired
}

// Nearest returns the value under the prefix that is closest to a seen text,
// for the explanation of a refusal: a value that is exactly the seen one,
// though under another name or expired, before one that merely starts like it.
// It looks at texts and at texts in arrays, and ignores case. The name is
// empty if nothing is near.
func (r *Registry) Nearest(ctx context.Context, prefix, seen string) (Match, error) {
	values, err := r.List(ctx, prefix)
	if err != nil || seen == "" {
		return Match{}, err
	}
	seen = strings.ToLower(seen)
	var best Match
	bestScore := 0
	for _, v := range values {
		m := Match{Name: v.Name, Expired: r.expired(v)}
		for _, text := range texts(v.Value) {
			n := common(seen, strings.ToLower(text))
			m.Exact = n == len(seen) && n == len(text)
			if n < nearEnough && !m.Exact {
				continue
			}
			score := 4 * n
			if m.Exact {
				score += 2
			}
			if !m.Expired {
				score++
			}
			if score > bestScore {
				best, bestScore = m, score
			}
		}
	}
	return best, nil
}

// texts returns the strings in a value.
func texts(raw json.RawMessage) []string {
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
