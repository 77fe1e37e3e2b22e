package attestation

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const (
	sessionPrefix = "session/"
	nonceSize     = 32 // bytes (kbs-protocol 3.2)
	cookieSize    = 16 // bytes, 32 hex digits on the wire
	sweepBatch    = 500
)

// errSession says that a cookie names no session that could be used.
var errSession = errors.New("the session is unknown, expired or spent")

// State of a session. It only moves forward.
type state string

const (
	challenged state = "challenged"
	spent      state = "spent" // an answer came; nothing came of it yet
	attested   state = "attested"
)

// session is the stored record. Its key is the hash of the cookie, so that a
// reader of the store cannot take a session over.
type session struct {
	State    state     `json:"state"`
	Platform string    `json:"platform"`
	Nonce    string    `json:"nonce,omitempty"`
	Expires  time.Time `json:"expires"`
	// Ceremony names the handshake in the audit log and becomes the id of the
	// token, so that a release can be traced to its attestation.
	Ceremony string `json:"ceremony"`
	// Token is of use to the guest alone: what is released for it is
	// encrypted to a key that only the guest has.
	Token string `json:"token,omitempty"`

	key     string
	version store.Version
}

func (s session) subject() string { return Subject(s.Platform, s.Ceremony) }

// Subject names a guest in audit entries and tickets: its platform and the id
// of its token.
func Subject(platform, tokenID string) string { return "guest:" + platform + "/" + tokenID }

type sessions struct {
	st       store.Store
	now      func() time.Time
	lifetime time.Duration
}

// sessionKey refuses anything but the form that open gives out.
func sessionKey(cookie string) (string, bool) {
	raw, err := hex.DecodeString(cookie)
	if err != nil || len(raw) != cookieSize {
		return "", false
	}
	sum := sha256.Sum256(raw)
	return sessionPrefix + hex.EncodeToString(sum[:]), true
}

func (s sessions) open(ctx context.Context, platform string) (Opened, error) {
	cookie := hex.EncodeToString(secret.Random(cookieSize).Reveal())
	key, _ := sessionKey(cookie)
	sess := session{
		State: challenged, Platform: platform,
		Nonce:    base64.StdEncoding.EncodeToString(secret.Random(nonceSize).Reveal()),
		Expires:  s.now().UTC().Add(s.lifetime),
		Ceremony: hex.EncodeToString(secret.Random(16).Reveal()),
	}
	err := s.st.Update(ctx, func(tx store.Tx) error { return put(tx, key, sess, store.Absent) })
	return Opened{
		Cookie: cookie, Expires: sess.Expires,
		Challenge: api.Challenge{Nonce: sess.Nonce, ExtraParams: api.NoExtraParams()},
	}, err
}

// consume takes the challenge of a session, once.
func (s sessions) consume(ctx context.Context, cookie string) (session, error) {
	key, ok := sessionKey(cookie)
	if !ok {
		return session{}, errSession
	}
	var out session
	err := s.st.Update(ctx, func(tx store.Tx) error {
		sess, err := s.get(tx, key)
		if err != nil {
			return err
		}
		if sess.State != challenged {
			return fmt.Errorf("%w: its challenge was answered before", errSession)
		}
		out = sess
		sess.State, sess.Nonce = spent, ""
		v, err := tx.Put(key, encode(sess), sess.version)
		out.key, out.version = key, v
		return err
	})
	if errors.Is(err, store.ErrConflict) {
		err = fmt.Errorf("%w: another answer came first", errSession)
	}
	return out, err
}

// attested stores the token in a session that consume returned.
func (s sessions) attested(tx store.Tx, sess session, text string) error {
	want := sess.version
	sess.State, sess.Nonce, sess.Token = attested, "", text
	return put(tx, sess.key, sess, want)
}

func (s sessions) token(ctx context.Context, cookie string) (string, bool, error) {
	key, ok := sessionKey(cookie)
	if !ok {
		return "", false, nil
	}
	var text string
	err := s.st.View(ctx, func(tx store.Tx) error {
		sess, err := s.get(tx, key)
		text = sess.Token
		return err
	})
	if errors.Is(err, errSession) {
		return "", false, nil
	}
	return text, err == nil && text != "", err
}

func (s sessions) get(tx store.Tx, key string) (session, error) {
	r, err := tx.Get(key)
	if errors.Is(err, store.ErrNotFound) {
		return session{}, errSession
	}
	if err != nil {
		return session{}, err
	}
	var sess session
	if err := json.Unmarshal(r.Value, &sess); err != nil {
		return session{}, fmt.Errorf("session record: %w", err)
	}
	sess.version = r.Version
	if !s.now().Before(sess.Expires) {
		return session{}, fmt.Errorf("%w: it expired", errSession)
	}
	return sess, nil
}

// sweep deletes expired sessions, a batch in each transaction.
func (s sessions) sweep(ctx context.Context) (int, error) {
	deleted, after := 0, ""
	for {
		batch, last, gone := 0, after, 0
		err := s.st.Update(ctx, func(tx store.Tx) error {
			batch, last, gone = 0, after, 0
			rs, err := tx.List(sessionPrefix, after, sweepBatch)
			if err != nil {
				return err
			}
			for _, r := range rs {
				batch, last = batch+1, r.Key
				var sess session
				if json.Unmarshal(r.Value, &sess) == nil && s.now().Before(sess.Expires) {
					continue
				}
				if err := tx.Delete(r.Key, r.Version); err != nil {
					return err
				}
				gone++
			}
			return nil
		})
		if err != nil {
			return deleted, err
		}
		deleted, after = deleted+gone, last
		if batch < sweepBatch {
			return deleted, nil
		}
	}
}

func put(tx store.Tx, key string, sess session, want store.Version) error {
	_, err := tx.Put(key, encode(sess), want)
	return err
}

func encode(sess session) []byte {
	raw, err := json.Marshal(sess)
	if err != nil {
		panic("attestation: a session cannot be encoded: " + err.Error()) // strings and a time
	}
	return raw
}
