package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/archive"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/postgres"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
)

// OpenStore opens the store that the configuration names, making or migrating
// it. Replicas of a broker share a PostgreSQL database and the master key, and
// nothing else has to be the same for them.
func OpenStore(ctx context.Context, cfg config.Config) (store.Store, error) {
	c := cfg.StorageBackend
	if c.Kind() == config.StorageSQLite {
		path := c.Path(cfg.StateDir)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		return sqlite.Open(path)
	}
	dsn, err := postgresDSN(c.Backends.Postgres)
	if err != nil {
		return nil, err
	}
	return postgres.Open(ctx, dsn, postgres.Options{MaxConnections: c.Backends.Postgres.MaxConnections})
}

func postgresDSN(c config.Postgres) (string, error) {
	dsn, err := c.DSN()
	if err != nil {
		return "", err
	}
	return postgres.Secure(string(dsn.Reveal()), c.InsecureTLS)
}

// StorePlan says what OpenStore would make or migrate, and does not do it.
func StorePlan(ctx context.Context, cfg config.Config) (store.Plan, error) {
	c := cfg.StorageBackend
	if c.Kind() == config.StorageSQLite {
		return sqlite.PlanOf(ctx, c.Path(cfg.StateDir))
	}
	dsn, err := postgresDSN(c.Backends.Postgres)
	if err != nil {
		return store.Plan{}, err
	}
	return postgres.PlanOf(ctx, dsn)
}

// keyRestored is the note that a restore leaves in the store, in its own
// transaction, for the audit log: whoever restores may not have the keys to
// append to that.
const keyRestored = "store/restored"

type restored struct {
	Time    time.Time `json:"time"`
	Backup  time.Time `json:"backup"` // when it was made
	Program string    `json:"program"`
	Records int64     `json:"records"`
}

// RestoreNote returns the record that tells the next broker to open the store
// about a restore.
func RestoreNote(h archive.Header, c archive.Counts, now time.Time) (group.Row, error) {
	raw, err := json.Marshal(restored{Time: now.UTC(), Backup: h.Created, Program: h.Program, Records: c.Records})
	return group.Row{Key: keyRestored, Version: 1, Modified: now.UnixMicro(), Value: raw}, err
}

// recordRestore moves the note of a restore to the audit log.
func recordRestore(tx store.Tx, log audit.Recorder) error {
	tx = store.Unscoped(tx)
	r, err := tx.Get(keyRestored)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var note restored
	if err := json.Unmarshal(r.Value, &note); err != nil {
		return fmt.Errorf("the note of a restore: %w", err)
	}
	_, err = log.AppendTx(tx, api.AuditEntry{
		Kind: api.AuditRestore, Decision: "change", Subject: "kbs",
		Details: map[string]string{
			"time": note.Time.Format(time.RFC3339), "backup": note.Backup.Format(time.RFC3339),
			"program": note.Program, "records": strconv.FormatInt(note.Records, 10),
		},
	})
	if err != nil {
		return err
	}
	return tx.Delete(keyRestored, r.Version)
}
