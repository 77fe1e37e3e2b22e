package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

const prefixCursor = "audit/sink/"

// errLost says that another replica has taken the lease.
var errLost = errors.New("sink: another replica has the lease")

// cursor is the record of one sink.
type cursor struct {
	// Next is the index of the first entry that is not confirmed.
	Next int64 `json:"next"`
	// Holder delivers, until Until.
	Holder string    `json:"holder,omitempty"`
	Until  time.Time `json:"until,omitzero"`
	// Behind says that the log tells of this sink being too far behind.
	Behind bool `json:"behind,omitempty"`
}

func readCursor(tx store.Tx, name string) (cursor, store.Version, error) {
	r, err := tx.Get(prefixCursor + name)
	if errors.Is(err, store.ErrNotFound) {
		return cursor{}, store.Absent, nil
	}
	if err != nil {
		return cursor{}, 0, err
	}
	var c cursor
	if err := json.Unmarshal(r.Value, &c); err != nil || c.Next < 0 {
		return cursor{}, 0, fmt.Errorf("sink: the cursor of %s is damaged", name)
	}
	return c, r.Version, nil
}

func writeCursor(tx store.Tx, name string, c cursor, was store.Version) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = tx.Put(prefixCursor+name, raw, was)
	return err
}

// lease is this replica's side of one cursor.
type lease struct {
	st     store.Store
	name   string
	holder string
	length time.Duration
	now    func() time.Time
}

// hold moves the cursor by n entries and renews the lease, or takes it if it
// is free. It returns the cursor as it then is, also with errLost.
func (l lease) hold(ctx context.Context, from, n int64) (cursor, error) {
	var c cursor
	err := l.st.Update(ctx, func(tx store.Tx) error {
		var was store.Version
		var err error
		if c, was, err = readCursor(tx, l.name); err != nil {
			return err
		}
		mine := c.Holder == l.holder
		if !mine && c.Holder != "" && l.now().Before(c.Until) {
			return errLost
		}
		if n > 0 {
			if !mine || c.Next != from {
				return errLost
			}
			c.Next += n
		}
		c.Holder, c.Until = l.holder, l.now().Add(l.length).UTC()
		return writeCursor(tx, l.name, c, was)
	})
	return c, err
}

// release lets another replica try at once.
func (l lease) release(ctx context.Context) error {
	return l.st.Update(ctx, func(tx store.Tx) error {
		c, was, err := readCursor(tx, l.name)
		if err != nil || c.Holder != l.holder {
			return err
		}
		c.Holder, c.Until = "", time.Time{}
		return writeCursor(tx, l.name, c, was)
	})
}
