package ticket

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// A silence is a record beside its group, not a member of it: refusals write
// their group all the time, and must not have to know.
const prefixSilence = "ticket/silence/"

// MaxSilence is how long a group can be silenced at once. What nobody wants to
// hear of for longer wants a decision.
const MaxSilence = 90 * 24 * time.Hour

const maxReason = 1024 // bytes

// ErrSilence says that a silence lacks its reason or its end.
var ErrSilence = errors.New("ticket: a silence has a reason of at most 1024 bytes, and ends within 90 days")

// SilenceTx implements [Book].
func (b *book) SilenceTx(tx store.Tx, id string, s api.Silence) (api.Silence, error) {
	s.Since, s.Until = b.now().UTC(), s.Until.UTC()
	if s.Reason == "" || len(s.Reason) > maxReason || !s.Until.After(s.Since) || s.Until.After(s.Since.Add(MaxSilence)) {
		return s, ErrSilence
	}
	if _, err := b.groupTx(tx, id); err != nil {
		return s, err
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return s, fmt.Errorf("ticket: %w", err)
	}
	_, err = tx.PutUntil(prefixSilence+id, raw, store.Any, s.Until)
	return s, err
}

// EndSilenceTx implements [Book].
func (b *book) EndSilenceTx(tx store.Tx, id string) error {
	g, err := b.groupTx(tx, id)
	if err != nil {
		return err
	}
	if g.Silence == nil {
		return store.ErrNotFound
	}
	return tx.Delete(prefixSilence+id, store.Any)
}

// silence returns that of a record; nil for one whose time is over.
func (b *book) silence(r store.Record) (*api.Silence, error) {
	var s api.Silence
	if err := json.Unmarshal(r.Value, &s); err != nil {
		return nil, fmt.Errorf("%w: its silence: %w", errDamaged, err)
	}
	if !b.now().Before(s.Until) {
		return nil, nil
	}
	return &s, nil
}

// silences returns all that hold, by group.
func (b *book) silences(tx store.Tx) (map[string]*api.Silence, error) {
	all, err := tx.List(prefixSilence, "", maxGroups)
	if err != nil {
		return nil, err
	}
	out := make(map[string]*api.Silence, len(all))
	for _, r := range all {
		if out[r.Key[len(prefixSilence):]], err = b.silence(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}
