package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const detailHandover = "handover" // in the entry of a rotation

// Keys returns what an auditor needs beside the key that he trusts.
func (l *Log) Keys(ctx context.Context) (api.AuditKeys, error) {
	k, err := l.keys(ctx)
	if err != nil {
		return api.AuditKeys{}, err
	}
	return api.AuditKeys{Current: k.trust.Current(), Handovers: slices.Clone(k.said)}, nil
}

// Origin returns the name of the log, as in its checkpoints. It never changes.
func (l *Log) Origin() string { return l.keeper.loaded.Load().trust.Origin() }

// RotateKey replaces the key that signs checkpoints, and returns what Keys
// returns from then on. The old key signs the new one's verifier key, and the
// hand-over is an entry of the log: e says who wanted it. If current is not the
// verifier key in force, the error is store.ErrConflict.
//
// The new key is in the ring before anything names it: a rotation that is cut
// short leaves a key behind that the next one takes.
func (l *Log) RotateKey(ctx context.Context, current string, e api.AuditEntry) (api.AuditKeys, error) {
	var out api.AuditKeys
	err := l.withKeys(ctx, func(k *keys) error {
		if current != k.current.vkey {
			return fmt.Errorf("audit: the signing key is another one: %w", store.ErrConflict)
		}
		text, err := l.keeper.ring.LoadOrCreate(ctx, signingName(len(k.said)+1), func() (secret.Bytes, error) {
			return createSigning(k.trust.Origin())
		})
		if err != nil {
			return fmt.Errorf("audit: signing key: %w", err)
		}
		next, err := parseSigning(text)
		if err != nil {
			return err
		}
		return l.st.Update(ctx, func(tx store.Tx) error {
			out, err = l.handOver(tx, k, next, e)
			return err
		})
	})
	return out, err
}

// HandoverOf returns the hand-over that an entry records, "" if it records
// none. Only [Trust.Follow] can say what it is worth.
func HandoverOf(e api.AuditEntry) string {
	if e.Kind != api.AuditKeyRotate {
		return ""
	}
	return e.Details[detailHandover]
}

// handOver lets the old key sign the log once more, as it stands, before the
// new one takes over.
func (l *Log) handOver(tx store.Tx, k *keys, next signing, e api.AuditEntry) (api.AuditKeys, error) {
	end, err := readTip(tx, l.mac.Reveal())
	if err != nil {
		return api.AuditKeys{}, err
	}
	if _, _, err := l.lastCheckpoint(tx, k, end); err != nil {
		return api.AuditKeys{}, err
	}
	h := handover{origin: k.trust.Origin(), size: end.size, old: k.current.vkey, new: next.vkey}
	said, err := note.Sign(&note.Note{Text: h.text()}, k.current.signer, next.signer)
	if err != nil {
		return api.AuditKeys{}, fmt.Errorf("audit: sign: %w", err)
	}
	e.Kind, e.Decision, e.Object = api.AuditKeyRotate, "change", "audit/key"
	e.Details = map[string]string{"key": next.vkey, detailHandover: string(said)}
	if _, err := l.AppendTx(tx, e); err != nil {
		return api.AuditKeys{}, err
	}
	all := append(slices.Clone(k.said), string(said))
	raw, err := json.Marshal(all)
	if err != nil {
		return api.AuditKeys{}, err
	}
	if _, err := tx.Put(keyHandovers, raw, k.version); err != nil {
		return api.AuditKeys{}, fmt.Errorf("audit: hand-over: %w", err)
	}
	return api.AuditKeys{Current: next.vkey, Handovers: all}, nil
}
