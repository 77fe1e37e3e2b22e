package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// maxNote limits the note of a version, in bytes.
const maxNote = 1 << 10

// Settings are an installation's choices. The zero value asks for no stages
// and keeps DefaultVersions.
type Settings struct {
	// Selectors are the attestation policies that guests may choose beside
	// DefaultID: the texts SELECTOR_CLASS are in force.
	Selectors []string
	// RequireStages refuses to put a text in force that was not in the shadow.
	RequireStages bool
	// MaxVersions is how many versions of a policy are kept. The versions in
	// force and in the shadow and the newest one are kept in any case.
	MaxVersions int
}

// DefaultVersions is how many versions are kept when nobody says.
const DefaultVersions = 50

// Documents keeps policy texts with their versions. It is safe for concurrent
// use: what is stored is the only state that matters.
type Documents struct {
	st  store.Store
	now func() time.Time
	set Settings

	fresh  atomic.Int64 // decisions recorded since old ones were looked for
	pruned atomic.Bool
}

// NewDocuments returns the policies kept in st.
func NewDocuments(st store.Store, now func() time.Time, set Settings) *Documents {
	if set.MaxVersions <= 0 {
		set.MaxVersions = DefaultVersions
	}
	return &Documents{st: st, now: now, set: set}
}

// Change is called inside the transaction of a change, so that its audit entry
// becomes durable together with it.
type Change func(tx store.Tx, p api.Policy) error

// Get returns the version in force, or else the newest; store.ErrNotFound if
// there is none or it was deleted.
func (d *Documents) Get(ctx context.Context, kind Kind, id string) (api.Policy, error) {
	return d.Version(ctx, kind, id, 0)
}

// Version returns one version, or with 0 that of Get. A deletion is a version
// without a text.
func (d *Documents) Version(ctx context.Context, kind Kind, id string, n int64) (api.Policy, error) {
	var p api.Policy
	err := d.st.View(ctx, func(tx store.Tx) error {
		h, err := readHead(tx, kind, id)
		if err != nil {
			return err
		}
		if n == 0 {
			n = h.shown()
		}
		v, err := readVersion(tx, kind, id, n)
		if err != nil {
			return err
		}
		p = d.policy(kind, id, n, h, v)
		return nil
	})
	return p, err
}

// List returns all policies as Get does, in the order of kind and id, without
// their texts.
func (d *Documents) List(ctx context.Context) ([]api.Policy, error) {
	var out []api.Policy
	err := d.st.View(ctx, func(tx store.Tx) error {
		out = []api.Policy{}
		return each(tx, keyHead, func(r store.Record) error {
			kind, id, err := splitHead(r.Key)
			if err != nil {
				return err
			}
			h, err := decodeHead(r)
			if n := h.shown(); err == nil && n != 0 {
				out = append(out, d.policy(kind, id, n, h, version{about: h.About}))
			}
			return err
		})
	})
	return out, err
}

// Versions returns every version that is kept, the oldest first, without
// their texts; store.ErrNotFound if there never was one.
func (d *Documents) Versions(ctx context.Context, kind Kind, id string) ([]api.Policy, error) {
	var out []api.Policy
	err := d.st.View(ctx, func(tx store.Tx) error {
		out = nil
		h, err := readHead(tx, kind, id)
		if err != nil {
			return err
		}
		if h.Latest == 0 {
			return store.ErrNotFound
		}
		return eachVersion(tx, kind, id, func(n int64, v version) error {
			v.Rego = ""
			out = append(out, d.policy(kind, id, n, h, v))
			return nil
		})
	})
	return out, err
}

func (d *Documents) policy(kind Kind, id string, n int64, h head, v version) api.Policy {
	p := api.Policy{
		Kind: string(kind), ID: id, Version: n, Rego: v.Rego, Stage: h.stage(n), Note: v.Note,
		Author: v.Author, Time: v.Time, SHA256: v.SHA256, Shadow: h.Shadow, Latest: h.Latest,
	}
	if v.Deleted {
		p.Stage = api.StageDeleted
	}
	p.InForce = p.Stage == api.StageEnforce && InForce(kind, id, d.set.Selectors...)
	return p
}

// Put stores a new version if the policy shows p.Version (0: there is none,
// -1: any), else store.ErrConflict. p.Stage says where the version goes. A text
// that does not compile is a *SyntaxError.
func (d *Documents) Put(ctx context.Context, p api.Policy, change Change) (api.Policy, error) {
	if p.Stage == "" {
		p.Stage = api.StageEnforce
	}
	switch {
	case !slices.Contains([]string{api.StageDraft, api.StageShadow, api.StageEnforce}, p.Stage):
		return api.Policy{}, fmt.Errorf("%w: a new version is a draft, or goes to shadow or enforce", ErrRequest)
	case p.Stage == api.StageEnforce && d.set.RequireStages:
		return api.Policy{}, fault.Newf(fault.StageRequired, "policies must be in the shadow before they are enforced: write with stage shadow or draft, then promote")
	}
	return d.put(ctx, p, change)
}

func (d *Documents) put(ctx context.Context, p api.Policy, change Change) (api.Policy, error) {
	kind, err := ParseName(p.Kind, p.ID)
	if err != nil {
		return api.Policy{}, err
	}
	if len(p.Note) > maxNote {
		return api.Policy{}, fmt.Errorf("%w: a note has at most %d bytes", ErrRequest, maxNote)
	}
	if err := Check(kind, p.Rego); err != nil {
		return api.Policy{}, err
	}
	v := version{about: about{Author: p.Author, Time: d.now().UTC(), SHA256: digestOf(p.Rego), Note: p.Note}, Rego: p.Rego}
	var stored api.Policy
	err = d.st.Update(ctx, func(tx store.Tx) error {
		h, err := d.begin(tx, kind, p.ID, p.Version)
		if err != nil {
			return err
		}
		if h.Latest == 0 {
			if err := roomForOne(tx); err != nil {
				return err
			}
		}
		n, err := d.append(tx, kind, p.ID, &h, v)
		if err != nil {
			return err
		}
		h.Deleted = false
		switch p.Stage {
		case api.StageEnforce:
			h.enforce(n)
		case api.StageShadow:
			if err := dropShadow(tx, kind, p.ID, &h); err != nil {
				return err
			}
			h.Shadow, h.ShadowSum = n, v.SHA256
		}
		if h.shown() == n {
			h.About = v.about
		}
		stored = d.policy(kind, p.ID, n, h, v)
		return d.finish(tx, kind, p.ID, h, func() error { return change(tx, stored) })
	})
	return stored, err
}

// Delete takes a policy out of force, if it shows the given version (-1: any).
// Its versions are kept, and a mark of the deletion with them. Without a policy
// its decisions refuse; they do not fall back to the shipped default.
func (d *Documents) Delete(ctx context.Context, kind Kind, id, author string, want int64, change Change) error {
	return d.st.Update(ctx, func(tx store.Tx) error {
		h, err := d.begin(tx, kind, id, want)
		if err != nil {
			return err
		}
		gone := h.shown()
		if gone == 0 {
			return store.ErrNotFound
		}
		last, err := readVersion(tx, kind, id, gone)
		if err != nil {
			return err
		}
		p := d.policy(kind, id, gone, h, last)
		if err := dropShadow(tx, kind, id, &h); err != nil {
			return err
		}
		h.retire()
		h.Deleted, h.About = true, about{}
		if _, err := d.append(tx, kind, id, &h, version{about: about{Author: author, Time: d.now().UTC()}, Deleted: true}); err != nil {
			return err
		}
		return d.finish(tx, kind, id, h, func() error { return change(tx, p) })
	})
}

// begin reads the head and compares what the caller saw.
func (d *Documents) begin(tx store.Tx, kind Kind, id string, want int64) (head, error) {
	h, err := readHead(tx, kind, id)
	if err != nil {
		return h, err
	}
	if shown := h.shown(); want != int64(store.Any) && want != shown {
		return h, fmt.Errorf("%w: the policy is at version %d", store.ErrConflict, shown)
	}
	return h, nil
}

// append writes the next version and returns its number.
func (d *Documents) append(tx store.Tx, kind Kind, id string, h *head, v version) (int64, error) {
	h.Latest++
	return h.Latest, putJSON(tx, versionKey(kind, id, h.Latest), v)
}

// finish prunes, writes the head and lets the caller add its audit entry.
func (d *Documents) finish(tx store.Tx, kind Kind, id string, h head, entry func() error) error {
	if err := d.prune(tx, kind, id, &h); err != nil {
		return err
	}
	if err := writeHead(tx, kind, id, h); err != nil {
		return err
	}
	return entry()
}

func roomForOne(tx store.Tx) error {
	count := 0
	err := each(tx, keyHead, func(store.Record) error { count++; return nil })
	if err == nil && count >= MaxPolicies {
		return ErrFull
	}
	return err
}

// InstallDefaults stores each shipped policy that never was there. One that
// an administrator deleted stays deleted.
func (d *Documents) InstallDefaults(ctx context.Context, change Change) error {
	for _, p := range Defaults() {
		if _, err := d.Versions(ctx, Kind(p.Kind), p.ID); err == nil {
			continue
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		p.Author, p.Stage, p.Note = "kbs", api.StageEnforce, "shipped with the broker"
		_, err := d.put(ctx, p, change)
		if err != nil && !errors.Is(err, store.ErrConflict) {
			return fmt.Errorf("install default policy %s/%s: %w", p.Kind, p.ID, err)
		}
	}
	return nil
}
