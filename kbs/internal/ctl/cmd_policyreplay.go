package ctl

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

// maxCorpus limits an exported corpus that is read, in bytes.
const maxCorpus = 256 << 20

type replayFlags struct {
	file, since, corpus string
	version             int64
	values              []string
}

func (c *cli) policyReplayCommand() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use:   "replay -f CANDIDATE.rego KIND/ID | --version N KIND/ID",
		Short: "Ask what a candidate would do to the recorded decisions",
		Long: `Ask a candidate about the decisions that the broker recorded, and compare it with
what is in force now: who would be refused, and who newly allowed. The candidate
is a file, or a version that the broker keeps.

With --corpus the decisions come from a file that "policy corpus export" wrote,
the reference values from --refvalues, and the comparison is with what was
recorded; no broker is needed. Recorded inputs lack nonces, keys, times and
random ids, so a policy that looks at those cannot be replayed.

The exit code is 7 if any decision would be another.`,
		Example: `  kbsctl policy replay -f new.rego resource/resource-policy --since 7d
  kbsctl policy replay -f new.rego attestation/default_cpu --corpus june.jsonl --refvalues refvalues.yaml`,
		Args:              exactArgs(1),
		ValidArgsFunction: c.completePolicies,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.replay(cmd.Context(), args[0], f) },
	}
	cmd.Flags().StringVarP(&f.file, "filename", "f", "", "the candidate's `FILE`, or - for stdin")
	cmd.Flags().Int64Var(&f.version, "version", 0, "or the `NUMBER` of a version at the broker")
	cmd.Flags().StringVar(&f.since, "since", "", "only decisions seen since a `TIME` (2026-01-02T15:04:05Z), or for as long (90m, 12h, 7d)")
	cmd.Flags().StringVar(&f.corpus, "corpus", "", "`FILE` of recorded decisions; no broker is asked")
	cmd.Flags().StringArrayVar(&f.values, "refvalues", nil, "with --corpus: `FILE` or directory of RefValue documents (repeatable)")
	return cmd
}

func (c *cli) replay(ctx context.Context, name string, f replayFlags) error {
	kind, id, err := splitPolicy(name)
	if err != nil {
		return err
	}
	since, err := parsePast("since", f.since, c.now())
	if err != nil {
		return err
	}
	if (f.file == "") == (f.version == 0) || (f.corpus != "" && f.file == "") {
		return usagef("replay: name the candidate with -f, or with --version if the broker is asked")
	}
	req := api.ReplayRequest{Target: f.version, Since: since}
	if f.file != "" {
		text, err := c.readInput(f.file, maxRego)
		if err != nil {
			return err
		}
		req.Rego = string(text)
	}
	if f.corpus != "" {
		report, err := c.replayOffline(ctx, kind, id, f, req)
		if err != nil {
			return err
		}
		return c.printReplay(report)
	}
	return c.onPolicy(ctx, name, func(ctx context.Context, a *admin.Client, kind, id string) error {
		report, err := a.ReplayPolicy(ctx, kind, id, req)
		if err != nil {
			return doing(err, "replay policy/%s", name)
		}
		return c.printReplay(report)
	})
}

func (c *cli) replayOffline(ctx context.Context, kind, id string, f replayFlags, req api.ReplayRequest) (api.ReplayReport, error) {
	raw, err := c.readInput(f.corpus, maxCorpus)
	if err != nil {
		return api.ReplayReport{}, err
	}
	var all []api.Decision
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, maxRego*4)
	for n := 1; lines.Scan(); n++ {
		var d api.Decision
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			return api.ReplayReport{}, usagef("%s: line %d: %w", f.corpus, n, err)
		}
		all = append(all, d)
	}
	if err := lines.Err(); err != nil {
		return api.ReplayReport{}, usagef("%s: %w", f.corpus, err)
	}
	values, err := c.refValues(f.values)
	if err != nil {
		return api.ReplayReport{}, err
	}
	host := c.policyHost()
	defer host.Close()
	report, err := host.ReplayOffline(ctx, policy.Kind(kind), id, req.Rego, all, req.Since, broughtValues(values))
	if err != nil {
		return report, usagef("%s: %w", f.file, err)
	}
	return report, nil
}

// policyHost evaluates policies in this process, and records nothing.
func (c *cli) policyHost() *policy.Host {
	return policy.NewHost(policy.HostConfig{Now: c.now, Logger: slog.New(slog.DiscardHandler)})
}

// broughtValues are reference values out of documents.
type broughtValues map[string]json.RawMessage

// Query implements refvalue.Querier.
func (b broughtValues) Query(_ context.Context, name string) (json.RawMessage, error) {
	return b[name], nil
}

// flipOrder shows first what should worry most.
var flipOrder = []string{api.FlipAllowed, api.FlipError, api.FlipDenied, api.FlipChanged}

func (c *cli) printReplay(r api.ReplayReport) error {
	slices.SortStableFunc(r.Flips, func(a, b api.Flip) int {
		return slices.Index(flipOrder, a.Kind) - slices.Index(flipOrder, b.Kind)
	})
	if c.flags.output != "table" {
		if err := c.printData(r); err != nil {
			return err
		}
	} else {
		if len(r.Flips) > 0 {
			if err := c.printTable(flipHeader, flipRows(r.Flips)); err != nil {
				return err
			}
		}
		if err := c.printf("policy/%s against what is %s: %s\n", r.Policy, r.Baseline, tallyText(r.Tally)); err != nil {
			return err
		}
	}
	if r.Tally != (api.Tally{Unchanged: r.Tally.Unchanged}) {
		return errDifferent
	}
	return nil
}

func tallyText(t api.Tally) string {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	return n(t.Unchanged) + " unchanged, " + n(t.NewlyAllowed) + " newly allowed, " + n(t.NewlyDenied) + " newly denied, " +
		n(t.Changed) + " changed, " + n(t.Errors) + " errors"
}

var flipHeader = []string{"FLIP", "ASKED", "BEFORE", "AFTER", "SEEN", "DECISION"}

func flipRows(flips []api.Flip) [][]string {
	rows := make([][]string, len(flips))
	for i, f := range flips {
		d := f.Decision
		asked := strings.Join(append([]string{d.Plugin}, d.Path...), "/")
		if d.Kind == string(policy.Attestation) {
			asked = d.ID
		}
		rows[i] = []string{
			f.Kind, asked, verdictText(f.Before), verdictText(f.After), strconv.FormatInt(d.Count, 10) + "x", d.Digest,
		}
	}
	return rows
}

// verdictText is a verdict in a cell.
func verdictText(v api.Verdict) string {
	switch {
	case v.Error != "":
		return "error: " + v.Error
	case len(v.Vector) > 0:
		var parts []string
		for name, value := range v.Vector {
			if value != 0 {
				parts = append(parts, name+"="+strconv.Itoa(int(value)))
			}
		}
		slices.Sort(parts)
		return strings.Join(parts, " ")
	case v.Allow:
		return "allow"
	}
	return "deny"
}

func (c *cli) policyCorpusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "corpus",
		Short: "The decisions that the broker recorded",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var since string
	export := &cobra.Command{
		Use:   "export",
		Short: "Write the recorded decisions, one JSON object a line",
		Example: `  kbsctl policy corpus export --since 30d > june.jsonl
  kbsctl policy replay -f new.rego resource/resource-policy --corpus june.jsonl`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := parsePast("since", since, c.now())
			if err != nil {
				return err
			}
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			for d, err := range a.Decisions(cmd.Context(), from) {
				if err != nil {
					return doing(err, "export decisions")
				}
				line, err := json.Marshal(d)
				if err != nil {
					return err
				}
				if err := c.printf("%s\n", line); err != nil {
					return err
				}
			}
			return nil
		},
	}
	export.Flags().StringVar(&since, "since", "", "only decisions seen since a `TIME` (2026-01-02T15:04:05Z), or for as long (90m, 12h, 7d)")
	cmd.AddCommand(export)
	return cmd
}
