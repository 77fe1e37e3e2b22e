package tenant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Record describes one tenant, as the API shows it.
type Record struct{ api.Tenant }

// Limits of one record.
const (
	maxHosts     = 16
	maxApprovals = 64
)

var (
	// ErrRecord says what a record must not say.
	ErrRecord = errors.New("tenant: not acceptable")
	// ErrInUse says that a tenant must be suspended before it can be deleted.
	ErrInUse = errors.New("tenant: only a suspended tenant can be deleted")

	hostForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
	markForm = regexp.MustCompile(`^(\*|[a-z]+\.(\*|[a-z]+))$`)
)

// check returns an error that wraps ErrName or ErrRecord.
func (r *Record) check() error {
	if err := CheckName(r.Name); err != nil {
		return err
	}
	if r.State == "" {
		r.State = api.TenantActive
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrRecord}, args...)...)
	}
	if r.State != api.TenantActive && r.State != api.TenantSuspended {
		return bad("the state is active or suspended")
	}
	if r.Name == Default && r.State != api.TenantActive {
		return bad("%s cannot be suspended", Default)
	}
	if len(r.Hosts) > maxHosts || len(r.Approvals) > maxApprovals {
		return bad("more than %d hosts or %d approvals", maxHosts, maxApprovals)
	}
	for _, h := range r.Hosts {
		if len(h) > 253 || !hostForm.MatchString(h) || net.ParseIP(h) != nil {
			return bad("%.64q is not a host name in lower case without a port", h)
		}
	}
	for _, a := range r.Approvals {
		if !markForm.MatchString(a) {
			return bad("%.64q is not of the form policy.put, policy.* or *", a)
		}
	}
	for _, q := range []int64{r.Quotas.Resources, r.Quotas.Bytes, r.Quotas.Policies, r.Quotas.RefValues, r.Quotas.Sessions, r.Quotas.Releases} {
		if q < -1 {
			return bad("a quota is a number, 0 for the default or -1 for none")
		}
	}
	return nil
}

// Marks reports whether a change needs a second person here.
func (r Record) Marks(action string) bool {
	object, _, _ := strings.Cut(action, ".")
	return slices.ContainsFunc(r.Approvals, func(m string) bool { return m == "*" || m == action || m == object+".*" })
}

// Change is called within the transaction of a change, so that its audit entry
// becomes durable together with it.
type Change func(tx store.Tx, r Record) error

// Put creates or replaces a tenant whose stored record is at version r.Version
// (0: there is none, -1: any), else store.ErrConflict.
func (r *Registry) Put(ctx context.Context, rec Record, change Change) (Record, error) {
	if err := rec.check(); err != nil {
		return Record{}, err
	}
	var out Record
	err := r.known.Update(ctx, func(tx store.Tx) error {
		out = rec
		old, err := get(tx, rec.Name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if old.State == api.TenantDeleting {
			return fmt.Errorf("%w: it is being deleted", store.ErrConflict)
		}
		out.Time = r.now().UTC()
		if out.Created = old.Created; out.Created.IsZero() {
			out.Created = out.Time
		}
		if err := r.alone(tx, out); err != nil {
			return err
		}
		return put(tx, &out, store.Version(rec.Version), change)
	})
	return out, err
}

// alone makes sure that no host names two tenants, and that there are not too
// many tenants.
func (r *Registry) alone(tx store.Tx, rec Record) error {
	all, err := tx.List(prefixRecord, "", MaxTenants+1)
	if err != nil {
		return err
	}
	if len(all) >= MaxTenants {
		return fmt.Errorf("%w: there are %d tenants already", ErrRecord, len(all))
	}
	for _, raw := range all {
		other, err := decode(raw)
		if err != nil {
			return err
		}
		for _, h := range other.Hosts {
			if other.Name != rec.Name && slices.Contains(rec.Hosts, h) {
				return fmt.Errorf("%w: the host %s is another tenant's", ErrRecord, h)
			}
		}
	}
	return nil
}

// Condemn begins to delete a suspended tenant: from here there is no way back.
// A tenant that is condemned already stays so.
func (r *Registry) Condemn(ctx context.Context, name string, want int64, change Change) (Record, error) {
	var out Record
	err := r.known.Update(ctx, func(tx store.Tx) (err error) {
		if out, err = get(tx, name); err != nil {
			return err
		}
		switch out.State {
		case api.TenantDeleting:
			return nil
		case api.TenantSuspended:
		default:
			return ErrInUse
		}
		out.State, out.Hosts, out.Time = api.TenantDeleting, nil, r.now().UTC()
		return put(tx, &out, store.Version(want), change)
	})
	return out, err
}

// batch is how many records Destroy deletes in one transaction: a record may
// have megabytes.
const batch = 64

// Destroy deletes all records of a condemned tenant, a batch at a time, and
// then the tenant. Where it was cut short, it goes on when it is called again.
func (r *Registry) Destroy(ctx context.Context, name string, change Change) error {
	for {
		done := false
		err := r.known.Update(ctx, func(tx store.Tx) (err error) {
			rec, err := get(tx, name)
			if err != nil {
				return err
			}
			if rec.State != api.TenantDeleting {
				return ErrInUse
			}
			if done, err = clearBatch(tx, prefix(name)); err != nil || !done {
				return err
			}
			if err := tx.Delete(prefixRecord+name, store.Any); err != nil {
				return err
			}
			return change(tx, rec)
		})
		if err != nil || done {
			return err
		}
	}
}

func clearBatch(tx store.Tx, prefix string) (done bool, err error) {
	all, err := tx.List(prefix, "", batch)
	if err != nil {
		return false, err
	}
	for _, r := range all {
		if err := tx.Delete(r.Key, store.Any); err != nil {
			return false, err
		}
	}
	return len(all) < batch, nil
}

func get(tx store.Tx, name string) (Record, error) {
	raw, err := tx.Get(prefixRecord + name)
	if err != nil {
		return Record{}, err
	}
	return decode(raw)
}

func put(tx store.Tx, rec *Record, want store.Version, change Change) error {
	stored := *rec
	stored.Version, stored.Usage = 0, nil
	raw, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	v, err := tx.Put(prefixRecord+rec.Name, raw, want)
	if err != nil {
		return err
	}
	rec.Version = int64(v)
	return change(tx, *rec)
}

func decode(r store.Record) (Record, error) {
	var rec Record
	if err := json.Unmarshal(r.Value, &rec); err != nil {
		return Record{}, fmt.Errorf("the record %s is damaged: %w", r.Key, err)
	}
	rec.Version = int64(r.Version)
	return rec, nil
}
