package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// eachVersion calls f for every version that is kept, the oldest first.
func eachVersion(tx store.Tx, kind Kind, id string, f func(n int64, v version) error) error {
	prefix := versionPrefix(kind, id)
	return each(tx, prefix, func(r store.Record) error {
		n, err := strconv.ParseInt(strings.TrimPrefix(r.Key, prefix), 10, 64)
		if err != nil {
			return fmt.Errorf("policy record %q has no number", r.Key)
		}
		var v version
		if err := json.Unmarshal(r.Value, &v); err != nil {
			return fmt.Errorf("policy record %q: %w", r.Key, err)
		}
		return f(n, v)
	})
}

// prune deletes the oldest versions beyond the limit, but none that plays a
// part: the audit log names those by number, and the engine needs their texts.
func (d *Documents) prune(tx store.Tx, kind Kind, id string, h *head) error {
	var kept []int64
	err := eachVersion(tx, kind, id, func(n int64, _ version) error {
		kept = append(kept, n)
		return nil
	})
	if err != nil {
		return err
	}
	surplus := len(kept) - d.set.MaxVersions
	for _, n := range kept {
		if surplus <= 0 {
			break
		}
		if n == h.Enforce || n == h.Shadow || n == h.Latest {
			continue
		}
		if err := tx.Delete(versionKey(kind, id, n), store.Any); err != nil {
			return err
		}
		h.Past = slices.DeleteFunc(h.Past, func(p int64) bool { return p == n })
		surplus--
	}
	return nil
}

// dropShadow takes the shadow away, and what was counted about it.
func dropShadow(tx store.Tx, kind Kind, id string, h *head) error {
	if h.Shadow == 0 {
		return nil
	}
	err := tx.Delete(shadowKey(kind, id, h.Shadow), store.Any)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	h.Shadow, h.ShadowSum = 0, ""
	return nil
}
