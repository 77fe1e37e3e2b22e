package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
)

// trouble is what an error of the server or of the way to it means for the
// transaction that met it.
type trouble int

const (
	bug      trouble = iota // the same would happen again
	conflict                // another transaction won: nothing was changed
	absence                 // the server is gone, full, or busy
)

// kindOf reads the SQLSTATE (PostgreSQL, appendix A). An error without one
// comes from the connection.
func kindOf(err error) trouble {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return absence
	}
	switch pg.Code {
	case "40001", "40P01": // serialization failure, deadlock
		return conflict
	case "25006", "25P03", "55P03": // a standby answered; idle for too long; lock timeout
		return absence
	}
	switch pg.Code[:min(2, len(pg.Code))] {
	case "08", "28", "53", "57", "58": // connection, login, resources, operator, system
		return absence
	}
	return bug
}

// beforeCommit marks an error after which nothing was changed for sure. ctx is
// the one that the database was asked with: what the caller itself ended is no
// trouble of the database.
func beforeCommit(ctx context.Context, verb string, err error) error {
	if err == nil {
		return nil
	}
	if ended := ctx.Err(); ended != nil && errors.Is(ended, context.Canceled) {
		return ended
	}
	err = fmt.Errorf("postgres: %s: %w", verb, err)
	if kindOf(err) == bug {
		return err
	}
	return store.Unavailable(fmt.Errorf("%w: %w", group.ErrRetry, err))
}

// atCommit marks an error of the commit itself: only where the server said
// that another transaction won is it certain that nothing was changed.
func atCommit(verb string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("postgres: %s: %w", verb, err)
	switch kindOf(err) {
	case conflict:
		return store.Unavailable(fmt.Errorf("%w: %w", group.ErrRetry, err))
	case absence:
		return store.Unavailable(err)
	case bug:
	}
	return err
}
