package broker

import (
	"context"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// KeyState is what `kbs keys` shows: the keys that a store is under, and how
// far the walk to the current one has come.
type KeyState struct {
	kek.State
	Progress kek.Progress // zero where there never was a rotation
}

// MasterKeys reads which keys a store is under. It opens none of them, so it
// also tells which one is missing.
func MasterKeys(ctx context.Context, cfg config.Config) (k KeyState, err error) {
	plan, err := StorePlan(ctx, cfg)
	switch {
	case err != nil:
		return k, err
	case plan.Have == 0 || plan.Pending():
		return k, fault.Newf(fault.NotFound, "there is no store of this program's schema: %s", plan.Engine)
	}
	st, err := OpenStore(ctx, cfg)
	if err != nil {
		return k, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if k.State, err = kek.ReadState(ctx, st); err != nil {
		return k, err
	}
	if k.Progress, err = kek.ReadProgress(ctx, st); errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return k, err
}

// MakeMasterKey makes a key file that a rotation can name, beside the first
// one, and returns its id and its path. No store is needed.
func MakeMasterKey(ctx context.Context, cfg config.Config) (id, path string, err error) {
	if cfg.MasterKey.Type != config.MasterKeyFile {
		return "", "", fault.Newf(fault.InvalidRequest, "the master key is not a file's: %s", cfg.MasterKey.Type)
	}
	files := kek.Files(cfg.MasterKey.FilePath(cfg.StateDir))
	w, err := files.Make(ctx)
	if err != nil {
		return "", "", err
	}
	return w.ID(), files.Path(w.ID()), nil
}

// RotateMasterKey rotates and walks to the end, whether or not brokers are
// serving over the same store.
func RotateMasterKey(ctx context.Context, cfg config.Config, o Options, to string) (k KeyState, err error) {
	s := &shared{Options: o, cfg: cfg}
	if s.store, err = OpenStore(ctx, cfg); err != nil {
		return k, err
	}
	defer func() { err = errors.Join(err, s.store.Close()) }()
	if s.kek, err = s.openKeys(ctx); err != nil {
		return k, err
	}
	s.ring = keyring.Open(s.store, s.kek)
	if err := s.openAudit(ctx); err != nil {
		return k, err
	}
	s.openWalker()
	_, err = s.kek.Rotate(ctx, to, func(tx store.Tx, from, to string) error {
		_, err := s.audit.AppendTx(store.Unscoped(tx), api.AuditEntry{
			Kind: api.AuditMasterKeyRotate, Decision: "change", Subject: "kbs keys", Object: "masterkey/" + to,
			Details: map[string]string{"from": from},
		})
		return err
	})
	if err != nil {
		return k, err
	}
	if err := s.walker.Walk(ctx); err != nil {
		return k, err
	}
	if k.State, err = s.kek.State(ctx); err != nil {
		return k, err
	}
	k.Progress, err = s.kek.Progress(ctx)
	return k, err
}
