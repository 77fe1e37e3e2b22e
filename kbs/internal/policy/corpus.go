package policy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// maxDecision limits the JSON of one recorded decision, in bytes. Larger ones
// (whole event logs of several devices) are not recorded.
const maxDecision = 128 << 10

// volatile members are new with every handshake, so they say nothing about who
// asks, and a record of them would be a record of every request.
var volatile = []string{
	"iat", "exp", "nbf", "jti", "nonce", "eat_nonce", "tee-pubkey", "report_data", "runtime_data_claims",
	"additional-evidence", "report_id", "report_id_ma",
}

// opaque members are kept as they are: within them the names above are
// somebody else's.
var opaque = []string{"init_data_claims", "uefi_event_logs"}

// strip removes the volatile members of claims, in place.
func strip(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range volatile {
			delete(v, name)
		}
		for name, member := range v {
			if !slices.Contains(opaque, name) {
				strip(member)
			}
		}
	case []any:
		for _, item := range v {
			strip(item)
		}
	}
}

// decisionOf is what is kept of a decision; false if it is too large.
func decisionOf(q Question, policy string, v api.Verdict, now time.Time) (api.Decision, bool) {
	d := json.NewDecoder(bytes.NewReader(q.Input.raw))
	d.UseNumber()
	var claims any
	if len(q.Input.raw) > maxDecision || d.Decode(&claims) != nil {
		return api.Decision{}, false
	}
	strip(claims)
	input, err := json.Marshal(claims)
	if err != nil {
		return api.Decision{}, false
	}
	out := api.Decision{
		Kind: string(q.Kind), ID: q.ID, Plugin: q.Release.Plugin, Path: q.Release.Path, Query: q.Release.Query,
		Input: input, Policy: policy, Verdict: v, Count: 1, First: now, Last: now,
	}
	asked, err := json.Marshal([]any{out.Kind, out.ID, out.Plugin, out.Path, out.Query, out.Input})
	if err != nil || len(asked) > maxDecision {
		return api.Decision{}, false
	}
	sum := sha256.Sum256(asked)
	out.Digest = hex.EncodeToString(sum[:16])
	return out, true
}

// questionOf is a decision asked again.
func questionOf(d api.Decision) (Question, error) {
	in, err := ParseInput(d.Input)
	return Question{
		Kind: Kind(d.Kind), ID: d.ID, Input: in,
		Release: Release{Plugin: d.Plugin, Path: d.Path, Query: d.Query},
	}, err
}

func decisionKey(d api.Decision) string { return keyDecision + d.Kind + "/" + d.Digest }

// batch is what one tenant's engines noted since the last write.
type batch struct {
	decisions map[string]api.Decision
	shadows   map[string]*shadowNotes // by shadowKey
	tooLarge  int
}

func newBatch() *batch {
	return &batch{decisions: map[string]api.Decision{}, shadows: map[string]*shadowNotes{}}
}

func (b *batch) len() int { return len(b.decisions) + len(b.shadows) }

func (b *batch) record(o observation, now time.Time) {
	d, ok := decisionOf(o.q, o.policy, o.verdict, now)
	if !ok {
		b.tooLarge++
		return
	}
	key := decisionKey(d)
	if old, ok := b.decisions[key]; ok {
		d = merge(old, d)
	}
	b.decisions[key] = d
}

// merge joins two records of one input; the newer verdict counts.
func merge(old, d api.Decision) api.Decision {
	d.Count += old.Count
	if old.First.Before(d.First) {
		d.First = old.First
	}
	return d
}

// writeBatch merges a batch into what is stored, in one transaction.
func (d *Documents) writeBatch(ctx context.Context, b *batch, cfg HostConfig) error {
	fresh := 0
	err := d.st.Update(ctx, func(tx store.Tx) error {
		fresh = 0
		for key, decision := range b.decisions {
			old, err := readJSON[api.Decision](tx, key)
			switch {
			case err == nil:
				decision = merge(old, decision)
			case errors.Is(err, store.ErrNotFound):
				fresh++
			default:
				return err
			}
			raw, err := json.Marshal(decision)
			if err != nil {
				return fmt.Errorf("encode decision: %w", err)
			}
			if _, err := tx.PutUntil(key, raw, store.Any, decision.Last.Add(cfg.KeepDecisions)); err != nil {
				return err
			}
		}
		for key, notes := range b.shadows {
			if err := notes.write(tx, key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	// The first write of a process prunes as well: time went on without it.
	if d.fresh.Add(int64(fresh)) < pruneEvery && d.pruned.Swap(true) {
		return nil
	}
	d.fresh.Store(0)
	return d.pruneDecisions(ctx, cfg)
}

// pruneEvery is how many new decisions make it worth to look for old ones.
const pruneEvery = 200

// pruneDecisions deletes what is too old, and the oldest of what is too much.
func (d *Documents) pruneDecisions(ctx context.Context, cfg HostConfig) error {
	type aged struct {
		key  string
		last time.Time
	}
	return d.st.Update(ctx, func(tx store.Tx) error {
		var all []aged
		err := each(tx, keyDecision, func(r store.Record) error {
			var v struct {
				Last time.Time `json:"last"`
			}
			if err := json.Unmarshal(r.Value, &v); err != nil {
				return fmt.Errorf("decision record %q: %w", r.Key, err)
			}
			all = append(all, aged{r.Key, v.Last})
			return nil
		})
		if err != nil {
			return err
		}
		slices.SortFunc(all, func(a, b aged) int { return b.last.Compare(a.last) })
		oldest := cfg.Now().Add(-cfg.KeepDecisions)
		for i, a := range all {
			if i < cfg.MaxDecisions && a.last.After(oldest) {
				continue
			}
			if err := tx.Delete(a.key, store.Any); err != nil {
				return err
			}
		}
		return nil
	})
}

// decisionPage is how many records are read at once.
const decisionPage = 200

// Decisions returns recorded decisions that were seen since a time, after the
// one of the given kind/digest, in that order, at most limit of them.
func (d *Documents) Decisions(ctx context.Context, since time.Time, after string, limit int) ([]api.Decision, error) {
	var out []api.Decision
	if after != "" {
		after = keyDecision + after
	}
	err := d.st.View(ctx, func(tx store.Tx) error {
		out = []api.Decision{}
		from := after
		for len(out) < limit {
			rs, err := tx.List(keyDecision, from, decisionPage)
			if err != nil {
				return err
			}
			for _, r := range rs {
				var v api.Decision
				if err := json.Unmarshal(r.Value, &v); err != nil {
					return fmt.Errorf("decision record %q: %w", r.Key, err)
				}
				if !v.Last.Before(since) && len(out) < limit {
					out = append(out, v)
				}
			}
			if len(rs) < decisionPage {
				return nil
			}
			from = rs[len(rs)-1].Key
		}
		return nil
	})
	return out, err
}

func readJSON[T any](tx store.Tx, key string) (T, error) {
	var v T
	r, err := tx.Get(key)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(r.Value, &v); err != nil {
		return v, fmt.Errorf("record %q: %w", key, err)
	}
	return v, nil
}
