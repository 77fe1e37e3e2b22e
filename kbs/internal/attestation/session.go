package attestation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/challenge"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

const (
	sessionPrefix = "session/"
	// grace is how long the record of a challenge outlives it. A replica whose
	// clock is behind must still find that it was answered.
	grace = 10 * time.Minute
)

// errSession says that a cookie names no session that could be used.
var errSession = errors.New("the session is unknown, expired or spent")

// session is the record of an answer to a challenge, the only trace that a
// handshake leaves. It is put where there is none and never changed, so of two
// answers at most one comes to anything.
type session struct {
	// Token is that of a handshake that succeeded; empty if it was refused. It
	// is of use to the guest alone: what is released for it is encrypted to a
	// key that only the guest has.
	Token string `json:"token,omitempty"`
	// Ceremony names the handshake in the audit log.
	Ceremony string `json:"ceremony"`
}

// Subject names a guest in audit entries and tickets: its platform and the id
// of its token.
func Subject(platform, tokenID string) string { return "guest:" + platform + "/" + tokenID }

func subject(c challenge.Challenge) string { return Subject(c.Platform, c.Ceremony) }

// sessions keeps the records, each under the key of its challenge.
type sessions struct{ st store.Store }

// answered returns the record of a challenge, and whether there is one.
func (s sessions) answered(ctx context.Context, c challenge.Challenge) (session, bool, error) {
	var out session
	err := s.st.View(ctx, func(tx store.Tx) error {
		r, err := tx.Get(sessionPrefix + c.Key())
		if err != nil {
			return err
		}
		if err := json.Unmarshal(r.Value, &out); err != nil {
			return fmt.Errorf("session record: %w", err)
		}
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return session{}, false, nil
	}
	return out, err == nil, err
}

// put is store.ErrConflict if the challenge was answered before.
func (s sessions) put(tx store.Tx, c challenge.Challenge, token string) error {
	raw, err := json.Marshal(session{Token: token, Ceremony: c.Ceremony})
	if err != nil {
		return fmt.Errorf("session record: %w", err)
	}
	_, err = tx.PutUntil(sessionPrefix+c.Key(), raw, store.Absent, c.Expires.Add(grace))
	return err
}
