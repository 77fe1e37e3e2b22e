package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func (c *cli) createCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create KIND NAME",
		Short: "Create one object without writing a document",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.createResourceCommand(), c.createRefValueCommand(), c.createRefSetCommand(), c.createSignerCommand(), c.createPolicyCommand(), c.createTenantCommand())
	return cmd
}

func overwriteFlag(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVar(to, "overwrite", false, "replace what is there")
}

func fromFileFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "from-file", "", "`FILE` to read, or - for stdin")
	_ = cmd.MarkFlagRequired("from-file")
}

func (c *cli) createResourceCommand() *cobra.Command {
	var from string
	var overwrite bool
	var m metaFlags
	cmd := &cobra.Command{
		Use:   "resource REPO/TYPE/TAG --from-file FILE",
		Short: "Store a secret that attested guests may get",
		Long: `Store a secret that the broker releases to guests which its policies allow.
The bytes of the file are taken as they are, a final line feed included. With
--overwrite, what was said about the resource stays unless a flag says otherwise.`,
		Example: `  kbsctl create resource prod/db/password --from-file password.txt
  openssl rand 32 | kbsctl create resource prod/image/app --from-file - --overwrite
  kbsctl create resource prod/image/app --from-file kek.bin --image reg.example/app`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := resourcePath(args[0])
			if err != nil {
				return err
			}
			b, err := c.readInput(from, maxResource)
			if err != nil {
				return err
			}
			value := secret.New(b)
			defer value.Destroy()
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			info, err := storeResource(cmd.Context(), a, path, value, overwrite, func(live api.ResourceMeta) (*api.ResourceMeta, error) {
				if !m.given(cmd) {
					return nil, nil
				}
				about, err := m.change(cmd, live)
				return &about, err
			})
			if err != nil {
				return doing(err, "create resource/%s", path)
			}
			return c.made(c.resourceObject(info), overwrite)
		},
	}
	m.add(cmd)
	fromFileFlag(cmd, &from)
	overwriteFlag(cmd, &overwrite)
	return cmd
}

// storeResource refuses to replace a resource unless told to: what only the old
// value opens is lost when that is forgotten. about says what to say about the
// resource, given what was said before.
func storeResource(ctx context.Context, a *admin.Client, path string, value secret.Bytes, overwrite bool, about func(api.ResourceMeta) (*api.ResourceMeta, error)) (api.ResourceInfo, error) {
	live, err := a.Resource(ctx, path)
	none, err := absent(err)
	switch {
	case err != nil:
		return api.ResourceInfo{}, err
	case !none && !overwrite:
		return api.ResourceInfo{}, existsAlready(live.Version)
	}
	meta, err := about(live.ResourceMeta)
	if err != nil {
		return api.ResourceInfo{}, err
	}
	return a.PutResourceIf(ctx, path, live.Version, value, meta) // version 0 where there was none
}

func existsAlready(version int64) error {
	return (&failure{
		err:  fault.Newf(fault.Conflict, "it exists already, at version %d", version),
		exit: fault.ExitConflict,
	}).hint("--overwrite replaces it; what only the old value opens is then lost")
}

func (c *cli) createRefValueCommand() *cobra.Command {
	var asJSON, overwrite bool
	var expires string
	cmd := &cobra.Command{
		Use:   "refvalue NAME VALUE...",
		Short: "Register a reference value",
		Long: `Register the values that good evidence may show under a name. They are stored as
a list of strings; with --json the one VALUE is taken as JSON.`,
		Example: `  kbsctl create refvalue snp_launch_measurement 2f19a4... 7b03c1... --expires 2027-06-30
  kbsctl create refvalue snp_minimum_tcb --json '{"snp": 21, "microcode": 72}'`,
		Args: minArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := refValueOf(args[0], args[1:], asJSON, expires)
			if err != nil {
				return usagef("%w", err)
			}
			if overwrite {
				v.Version = int64(store.Any)
			}
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			stored, err := a.PutRefValue(cmd.Context(), v)
			if err != nil {
				return doing(exists(err, overwrite), "create refvalue/%s", v.Name)
			}
			return c.made(c.refValueObject(stored), overwrite)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "the VALUE is JSON")
	cmd.Flags().StringVar(&expires, "expires", "", "`TIME` (RFC 3339) or day after which it no longer counts")
	overwriteFlag(cmd, &overwrite)
	return cmd
}

func refValueOf(name string, values []string, asJSON bool, expires string) (api.RefValue, error) {
	v := api.RefValue{Name: name}
	var err error
	if v.Expires, err = parseExpiry(expires); err != nil {
		return v, err
	}
	if !asJSON {
		v.Value, err = json.Marshal(values)
		return v, err
	}
	if len(values) != 1 || !json.Valid([]byte(values[0])) {
		return v, errors.New("with --json there is one VALUE, and it is valid JSON")
	}
	v.Value = json.RawMessage(values[0])
	return v, nil
}

func (c *cli) createPolicyCommand() *cobra.Command {
	var from, stage, note string
	var overwrite bool
	cmd := &cobra.Command{
		Use:   "policy KIND/ID --from-file FILE",
		Short: "Install a policy, or a draft of one",
		Example: `  kbsctl create policy attestation/default_cpu --from-file cpu.rego --overwrite
  kbsctl create policy resource/resource-policy --from-file release.rego --overwrite
  kbsctl create policy resource/resource/prod --from-file prod.rego --stage shadow`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(writeStages, stage) {
				return usagef("--stage is %s, not %q", strings.Join(writeStages, ", "), stage)
			}
			k, id, err := splitPolicy(args[0])
			if err != nil {
				return err
			}
			b, err := c.readInput(from, maxRego)
			if err != nil {
				return err
			}
			p := api.Policy{Kind: k, ID: id, Rego: string(b), Stage: stage, Note: note}
			if overwrite || stage != api.StageEnforce { // a draft replaces nothing
				p.Version = int64(store.Any)
			}
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			stored, err := a.PutPolicy(cmd.Context(), p)
			if err != nil {
				return doing(exists(err, overwrite), "create policy/%s from %s", args[0], origin(from))
			}
			c.warnIdle(stored)
			return c.made(c.policyObject(stored), overwrite)
		},
	}
	cmd.Flags().StringVar(&stage, "stage", api.StageEnforce, "`STAGE` where it goes: enforce, shadow or draft")
	cmd.Flags().StringVar(&note, "note", "", "`REASON`, for the history")
	fromFileFlag(cmd, &from)
	overwriteFlag(cmd, &overwrite)
	return cmd
}

// exists adds the way out to the conflict that "must not exist" leads to.
func exists(err error, overwrite bool) error {
	if f, ok := errors.AsType[*fault.Fault](err); ok && f.Code == fault.Conflict && !overwrite {
		return (&failure{err: err, exit: fault.ExitConflict}).hint("--overwrite replaces it; apply -f does so only if nobody else changed it")
	}
	return err
}

// made reports an object that was stored, in the form that -o asks for.
func (c *cli) made(o object, overwrite bool) error {
	if c.flags.output != "table" {
		return c.print([]object{o}, nil, false)
	}
	what := created
	if overwrite {
		what = configured
	}
	return c.printf("%s/%s %s\n", o.kind, o.name, what)
}

// origin names the file of --from-file in messages.
func origin(from string) string {
	if from == "-" {
		return "stdin"
	}
	return from
}

func (c *cli) readInput(from string, limit int64) ([]byte, error) {
	if from == "-" {
		b, err := given.Reader(c.stdio.In, origin(from), limit)
		if err != nil {
			return nil, usagef("%w", err)
		}
		return b, nil
	}
	b, err := given.File(from, limit)
	if err != nil {
		return nil, usagef("%w", err)
	}
	return b, nil
}
