package audit

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// DefaultTenant is written as "", so that the log of a broker with one tenant
// does not repeat its name.
const DefaultTenant = "default"

// ForTenant returns a recorder that labels each entry with the tenant, whatever
// the entry says. All tenants share one chain: nobody can hide that another
// tenant's entries exist between two of his own.
func ForTenant(rec Recorder, name string) Recorder {
	if name == DefaultTenant {
		name = ""
	}
	return tenant{rec, name}
}

type tenant struct {
	rec  Recorder
	name string
}

func (t tenant) Append(ctx context.Context, e api.AuditEntry) (api.AuditEntry, error) {
	e.Tenant = t.name
	return t.rec.Append(ctx, e)
}

func (t tenant) AppendTx(tx store.Tx, e api.AuditEntry) (api.AuditEntry, error) {
	e.Tenant = t.name
	return t.rec.AppendTx(tx, e)
}
