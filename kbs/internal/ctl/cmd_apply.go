package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func (c *cli) applyCommand() *cobra.Command {
	var files []string
	var dryRun, reason string
	cmd := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Make the broker's objects be as documents say",
		Long: `Make policies, reference values and resources be as YAML or JSON documents say
(see kbsctl explain policy|refvalue|resource). All documents are checked before
the first is applied. An object that somebody else changes in between, or that
is not at the version which the document names, is a conflict (exit code 5).

The value of a resource cannot be read back, so a resource whose document has a
value is always written.

A FILE whose name ends in .cbor or .corim is a document of reference values,
which the broker judges by its signature (see kbsctl explain refset). A message
to Trustee's reference value provider ({"version", "type", "payload"}) is
applied as the values in it.`,
		Example: `  kbsctl apply -f policies/
  kbsctl apply -f refvalues.yaml --dry-run=client
  kbsctl get policy resource/resource-policy -o manifest | sed s/old/new/ | kbsctl apply -f -`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dryRun != "none" && dryRun != "client" {
				return usagef("--dry-run is none or client, not %q", dryRun)
			}
			var signed []string
			rest := slices.DeleteFunc(slices.Clone(files), func(f string) bool {
				is := signedDocument(f)
				if is {
					signed = append(signed, f)
				}
				return is
			})
			if len(signed) > 0 && dryRun == "client" {
				return usagef("%s: a signed document can only be judged by the broker", signed[0])
			}
			if len(rest) > 0 {
				all, err := c.readManifests(rest)
				if err != nil {
					return err
				}
				if err := c.apply(cmd.Context(), all, dryRun == "client"); err != nil {
					return err
				}
			}
			if len(signed) == 0 {
				return nil
			}
			return c.register(cmd.Context(), signed, reason)
		},
	}
	fileFlag(cmd, &files)
	unsignedFlag(cmd, &reason)
	cmd.Flags().StringVar(&dryRun, "dry-run", "none", "`WHERE` it ends: client says what would be done, and does nothing")
	return cmd
}

func fileFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "filename", "f", nil, "`FILE` or directory of documents, or - for stdin (repeatable)")
	_ = cmd.MarkFlagRequired("filename")
}

// readManifests reads every file that -f names; of a directory its .yaml, .yml
// and .json files in the order of their names.
func (c *cli) readManifests(files []string) ([]manifest, error) {
	var all []manifest
	for _, f := range files {
		found, err := c.readManifestsAt(f)
		if err != nil {
			return nil, usagef("%w", err)
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		return nil, usagef("there is no document to read")
	}
	seen := map[string]string{}
	for i := range all {
		t := all[i].target()
		if first, twice := seen[t]; twice {
			return nil, usagef("%s: %s comes twice (first: %s)", all[i].origin, t, first)
		}
		seen[t] = all[i].origin
	}
	return all, nil
}

func (c *cli) readManifestsAt(f string) ([]manifest, error) {
	if f == "-" {
		b, err := given.Reader(c.stdio.In, "stdin", maxManifests)
		if err != nil {
			return nil, err
		}
		return parseManifests(b, "stdin", ".")
	}
	info, err := os.Stat(f)
	if err != nil {
		return nil, err
	}
	paths := []string{f}
	if info.IsDir() {
		paths = nil
		entries, err := os.ReadDir(f)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) && !e.IsDir() {
				paths = append(paths, filepath.Join(f, e.Name()))
			}
		}
	}
	var all []manifest
	for _, p := range paths {
		b, err := given.File(p, maxManifests)
		if err != nil {
			return nil, err
		}
		found, err := parseManifests(b, p, filepath.Dir(p))
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// What apply did to an object.
const (
	created    = "created"
	configured = "configured"
	unchanged  = "unchanged"
)

func (c *cli) apply(ctx context.Context, all []manifest, dry bool) error {
	steps := make([]step, 0, len(all))
	for i := range all {
		s, err := c.step(&all[i])
		if err != nil {
			return err
		}
		steps = append(steps, s)
	}
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	for i, s := range steps {
		what, err := s(ctx, a, dry)
		if err != nil {
			if i > 0 {
				c.warnf("%d of %d documents were applied before the error", i, len(steps))
			}
			return doing(err, "apply %s", all[i].target())
		}
		if dry {
			what += " (dry run)"
		}
		if err := c.printf("%s %s\n", all[i].target(), what); err != nil {
			return err
		}
	}
	return nil
}

// step applies one document and says what that did.
type step func(ctx context.Context, a *admin.Client, dry bool) (string, error)

// step reads what a document refers to, so that a missing file is noticed
// before anything has been changed.
func (c *cli) step(m *manifest) (step, error) {
	switch m.Kind {
	case docPolicy:
		p, err := m.policy()
		return func(ctx context.Context, a *admin.Client, dry bool) (string, error) {
			return c.applyPolicy(ctx, a, p, dry)
		}, err
	case docRefValue:
		v, err := m.refValue()
		return func(ctx context.Context, a *admin.Client, dry bool) (string, error) {
			return applyRefValue(ctx, a, v, dry)
		}, err
	}
	value, err := m.value()
	if err != nil {
		return nil, err
	}
	path, err := resourcePath(m.Metadata.Name)
	return func(ctx context.Context, a *admin.Client, dry bool) (string, error) {
		return applyResource(ctx, a, path, m, value, dry)
	}, err
}

// absent tells "there is none" from a real failure.
func absent(err error) (bool, error) {
	if f, ok := errors.AsType[*fault.Fault](err); ok && f.Code == fault.NotFound {
		return true, nil
	}
	return false, err
}

// outdated compares the version that a document names with the one there is.
func outdated(wanted, there int64) error {
	if wanted != 0 && wanted != there {
		return fault.Newf(fault.Conflict, "the document is about version %d, and the broker has version %d", wanted, there)
	}
	return nil
}

func (c *cli) applyPolicy(ctx context.Context, a *admin.Client, p api.Policy, dry bool) (string, error) {
	live, err := a.Policy(ctx, p.Kind, p.ID)
	none, err := absent(err)
	if err != nil {
		return "", err
	}
	if err := outdated(p.Version, live.Version); err != nil {
		return "", err
	}
	what := configured
	there, err := atStage(ctx, a, live, p.Stage)
	switch {
	case err != nil:
		return "", err
	case none:
		what = created
	case there.Rego == p.Rego:
		return unchanged, nil
	}
	if dry {
		return what, nil
	}
	p.Version = live.Version // compare-and-swap: 0 where there was none
	stored, err := a.PutPolicy(ctx, p)
	if err == nil {
		c.warnIdle(stored)
	}
	return what, err
}

// atStage returns the version of a policy that a document about a stage is
// compared with, given the one that the policy shows; the empty one if there
// is none.
func atStage(ctx context.Context, a *admin.Client, live api.Policy, stage string) (api.Policy, error) {
	n := live.Latest
	switch stage {
	case "", api.StageEnforce:
		if live.Stage == api.StageEnforce {
			return live, nil
		}
		return api.Policy{}, nil
	case api.StageShadow:
		n = live.Shadow
	}
	if n == 0 {
		return api.Policy{}, nil
	}
	return a.PolicyVersion(ctx, live.Kind, live.ID, n)
}

func applyRefValue(ctx context.Context, a *admin.Client, v api.RefValue, dry bool) (string, error) {
	live, err := a.RefValue(ctx, v.Name)
	none, err := absent(err)
	if err != nil {
		return "", err
	}
	live = ownWord(live)
	if err := outdated(v.Version, live.Version); err != nil {
		return "", err
	}
	what := configured
	switch {
	case none:
		what = created
	case sameJSON(live.Value, v.Value) && sameExpiry(live.Expires, v.Expires):
		return unchanged, nil
	}
	if dry {
		return what, nil
	}
	v.Version = live.Version
	_, err = a.PutRefValue(ctx, v)
	return what, err
}

// sameExpiry takes a document without an expiry to be content with any: the
// broker gave the value one.
func sameExpiry(live, wanted time.Time) bool { return wanted.IsZero() || live.Equal(wanted) }

// sameJSON compares values, not spellings.
func sameJSON(a, b json.RawMessage) bool {
	decode := func(raw []byte) (v any, err error) {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		err = dec.Decode(&v)
		return v, err
	}
	x, err1 := decode(a)
	y, err2 := decode(b)
	return err1 == nil && err2 == nil && reflect.DeepEqual(x, y)
}

// differ is what diff compares: a document as text, without its version.
func differ(m *manifest) ([]byte, error) {
	m.Metadata.Version = 0
	b, err := m.yaml()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.target(), err)
	}
	return b, nil
}
