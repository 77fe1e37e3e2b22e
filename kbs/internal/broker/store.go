package broker

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/postgres"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
)

// OpenStore opens the store that the configuration names, making or migrating
// it. Replicas of a broker share a PostgreSQL database and the master key, and
// nothing else has to be the same for them.
func OpenStore(ctx context.Context, cfg config.Config) (store.Store, error) {
	c := cfg.StorageBackend
	if c.Kind() == config.StorageSQLite {
		return sqlite.Open(c.Path(cfg.StateDir))
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
