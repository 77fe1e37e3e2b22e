// Package tenant keeps apart those who share one broker.
//
// A tenant has its own policies, reference values, resources, tickets, keys and
// administrators. All of them lie in one scope of the one store, and what seals
// them binds the tenant's name: a record that is carried from one tenant to
// another does not open there. The audit log is the one thing that is shared,
// because there is one chain; each entry names its tenant.
//
// Tenants come and go while the broker runs. Each replica knows the records
// from a snapshot that it compares with the store at most once a second, and
// builds what serves a tenant when the first request for it comes.
package tenant

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Default is the tenant of whoever names none. It always exists.
const Default = audit.DefaultTenant

var (
	// ErrName says that a text cannot name a tenant.
	ErrName = errors.New("tenant: a name is 1 to 40 of a-z, 0-9 and -, with no - at either end")

	nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
)

// CheckName returns ErrName if no tenant can have this name.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("%w: %.64q", ErrName, name)
	}
	return nil
}

// Scope is the part of the store that belongs to one tenant.
func Scope(st store.Store, name string) store.Store { return store.Scope(st, prefix(name)) }

// Tx is one tenant's part of whatever transaction tx is of.
func Tx(tx store.Tx, name string) store.Tx { return store.ScopeTx(store.Unscoped(tx), prefix(name)) }

func prefix(name string) string { return "t/" + name + "/" }

// Wrapper returns w for one tenant: what it wraps opens for no other.
func Wrapper(w kek.Wrapper, name string) kek.Wrapper {
	return kek.Bind(w, "vouchsafe tenant v1\x00"+name+"\x00")
}
