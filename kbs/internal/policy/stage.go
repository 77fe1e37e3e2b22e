package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Moved is a change of stage that is about to become durable.
type Moved struct {
	Policy api.Policy // the version that moved, as it stands afterwards
	From   int64      // the version that was in force before; 0 if none
	To     int64      // the version that is in force from now on; 0 if none
	Change api.StageChange
	Impact api.Tally // of recorded and shadowed decisions, for a promotion
}

// An Impact is what is known about a version that is about to be enforced.
// Replay is one; nil knows nothing.
type Impact func(ctx context.Context, kind Kind, id string, target int64) (api.Tally, error)

// Move changes the stage of a version. The caller names the version that the
// policy shows (0 none, -1 any), else store.ErrConflict.
//
// A promotion into force that would newly allow something known is the fault
// NewlyAllowed, unless the change says that this is wanted. A rollback goes
// only to versions that were in force before, and is not held up.
func (d *Documents) Move(ctx context.Context, kind Kind, id string, c api.StageChange, impact Impact, entry func(store.Tx, Moved) error) (Moved, error) {
	if err := checkMove(c); err != nil {
		return Moved{}, err
	}
	m := Moved{Change: c}
	target, err := d.target(ctx, kind, id, c)
	if err != nil {
		return m, err
	}
	if c.To == api.StageEnforce && !c.Rollback {
		if impact != nil {
			if m.Impact, err = impact(ctx, kind, id, target); err != nil {
				return m, fmt.Errorf("impact of %s: %w", Ref(kind, id, target), err)
			}
		}
		if n := m.Impact.NewlyAllowed; n > 0 && !c.AllowNewlyAllowed {
			return m, fault.Newf(fault.NewlyAllowed, "%s would allow %d recorded decisions that are refused now", Ref(kind, id, target), n)
		}
	}
	err = d.st.Update(ctx, func(tx store.Tx) error { return d.move(tx, kind, id, target, &m, entry) })
	return m, err
}

func checkMove(c api.StageChange) error {
	switch {
	case !slices.Contains([]string{api.StageDraft, api.StageShadow, api.StageEnforce}, c.To):
		return fmt.Errorf("%w: a version moves to draft, shadow or enforce, not %q", ErrRequest, c.To)
	case c.Rollback && c.To != api.StageEnforce:
		return fmt.Errorf("%w: a rollback ends in enforce", ErrRequest)
	case len(c.Note) > maxNote:
		return fmt.Errorf("%w: a note has at most %d bytes", ErrRequest, maxNote)
	}
	return nil
}

// target finds the version that a change means when it names none.
func (d *Documents) target(ctx context.Context, kind Kind, id string, c api.StageChange) (int64, error) {
	var h head
	err := d.st.View(ctx, func(tx store.Tx) (err error) {
		h, err = readHead(tx, kind, id)
		return err
	})
	switch {
	case err != nil:
		return 0, err
	case h.Latest == 0:
		return 0, store.ErrNotFound
	case c.Rollback:
		return h.rollbackTo(c.Target)
	case c.Target != 0:
		return c.Target, nil
	case h.Shadow != 0:
		return h.Shadow, nil
	}
	return h.Latest, nil
}

// rollbackTo returns the wanted version, or with 0 the last below the present
// one, if it was in force before.
func (h head) rollbackTo(want int64) (int64, error) {
	if want == 0 {
		for _, n := range slices.Backward(h.Past) {
			if h.Enforce == 0 || n < h.Enforce {
				return n, nil
			}
		}
		return 0, fmt.Errorf("%w: no version was in force before version %d", ErrRequest, h.Enforce)
	}
	if !slices.Contains(h.Past, want) {
		return 0, fmt.Errorf("%w: version %d was not in force before, so it can only be promoted", ErrRequest, want)
	}
	return want, nil
}

func (d *Documents) move(tx store.Tx, kind Kind, id string, target int64, m *Moved, entry func(store.Tx, Moved) error) error {
	h, err := d.begin(tx, kind, id, m.Change.Version)
	if err != nil {
		return err
	}
	v, err := readVersion(tx, kind, id, target)
	if err != nil {
		return err
	}
	if v.Deleted {
		return fmt.Errorf("%w: version %d is a deletion", ErrRequest, target)
	}
	m.From = h.Enforce
	switch m.Change.To {
	case api.StageEnforce:
		if d.set.RequireStages && !m.Change.Rollback && target != h.Shadow {
			return fault.Newf(fault.StageRequired, "version %d is not in the shadow", target)
		}
		if h.Enforce == target {
			return fmt.Errorf("%w: version %d is in force already", ErrRequest, target)
		}
		if h.Shadow == target {
			err = dropShadow(tx, kind, id, &h)
		}
		h.enforce(target)
	case api.StageShadow:
		if h.Enforce == target {
			return fmt.Errorf("%w: version %d is in force; it needs no shadow", ErrRequest, target)
		}
		if h.Shadow != target {
			err = dropShadow(tx, kind, id, &h)
		}
		h.Shadow, h.ShadowSum, h.Deleted = target, v.SHA256, false
	case api.StageDraft:
		if h.Shadow != target {
			return fmt.Errorf("%w: version %d is not in the shadow", ErrRequest, target)
		}
		err = dropShadow(tx, kind, id, &h)
	}
	if err != nil {
		return err
	}
	if err := h.refresh(tx, kind, id); err != nil {
		return err
	}
	m.To, m.Policy = h.Enforce, d.policy(kind, id, target, h, v)
	return d.finish(tx, kind, id, h, func() error { return entry(tx, *m) })
}

// refresh copies what the listing shows from the version that is shown now.
func (h *head) refresh(tx store.Tx, kind Kind, id string) error {
	v, err := readVersion(tx, kind, id, h.shown())
	if errors.Is(err, store.ErrNotFound) {
		h.About = about{}
		return nil
	}
	h.About = v.about
	return err
}
