package ctl

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/types"
	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

const policyTestLong = `Compile a policy exactly as the broker does, and run the tests beside it:

  FILE_test.rego   rules whose names start with test_; they set input, data and
                   query_reference_value by "with"
  FILE_test.yaml   a list of cases, each with what is asked and what is wanted:

    - name: a guest of the shop gets its keys
      input: {submods: {cpu0: {ear.status: affirming}}}
      data: {plugin: resource, resource-path: [shop, keys, "1"], query: {}}
      refvalues: {snp_launch_measurement: ["2f19"]}
      allow: true

  A case about a resource policy wants allow (true or false), one about an
  attestation policy wants a status (affirming, warning, contraindicated, none)
  or members of the vector. explain lists the claims that the explanation of a
  refusal names; error: true wants an evaluation that fails.

The files may also be given after the policy. Where a test says nothing else,
reference values come from --refvalues.

No broker is needed. The exit code is 2 if a test fails, or if fewer than
--min-coverage percent of the policy's lines were run.`

func (c *cli) policyTestCommand() *cobra.Command {
	var values []string
	var coverage bool
	var least float64
	cmd := &cobra.Command{
		Use:   "test FILE.rego [FILE_test.rego|FILE_test.yaml...]",
		Short: "Compile a policy and run its tests, offline",
		Long:  policyTestLong,
		Example: `  kbsctl policy test release.rego
  kbsctl policy test release.rego --coverage --min-coverage 90
  kbsctl policy test cpu.rego cpu_test.rego --refvalues refvalues.yaml`,
		Args: minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			run, err := c.readPolicyTests(args, values)
			if err != nil {
				return err
			}
			if err := c.runPolicyTests(cmd.Context(), run); err != nil {
				return err
			}
			return c.printPolicyTests(run, coverage, least)
		},
	}
	cmd.Flags().StringArrayVar(&values, "refvalues", nil, "`FILE` or directory of RefValue documents (repeatable)")
	cmd.Flags().BoolVar(&coverage, "coverage", false, "say which rules and lines no test ran")
	cmd.Flags().Float64Var(&least, "min-coverage", 0, "fail if tests ran less than `PERCENT` of the lines")
	return cmd
}

// policyTests are a policy, its tests, and what came of them.
type policyTests struct {
	file    string
	text    string
	modules map[string]*ast.Module // the policy and its tests in Rego
	cases   []fixture
	values  map[string]json.RawMessage

	cover   *cover.Cover
	results []testResult
}

// readPolicyTests compiles the policy under the broker's rules and reads the
// tests.
func (c *cli) readPolicyTests(files, values []string) (*policyTests, error) {
	t := &policyTests{file: files[0], modules: map[string]*ast.Module{}, cover: cover.New()}
	if len(files) == 1 {
		for _, suffix := range []string{"_test.rego", "_test.yaml"} {
			beside := strings.TrimSuffix(files[0], ".rego") + suffix
			if _, err := os.Stat(beside); err == nil {
				files = append(files, beside)
			}
		}
	}
	for i, f := range files {
		b, err := given.File(f, maxRego)
		if err != nil {
			return nil, usagef("%w", err)
		}
		if i == 0 {
			t.text = string(b)
			if err := policy.Check(policy.Resource, t.text); err != nil {
				return nil, usagef("%s: %w", f, err)
			}
		}
		if i > 0 && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(f)) {
			cases, err := readFixtures(b, f)
			if err != nil {
				return nil, usagef("%w", err)
			}
			t.cases = append(t.cases, cases...)
			continue
		}
		if t.modules[f], err = ast.ParseModuleWithOpts(f, string(b), ast.ParserOptions{RegoVersion: ast.RegoV1}); err != nil {
			return nil, usagef("%w", err)
		}
	}
	var err error
	t.values, err = c.refValues(values)
	return t, err
}

func (c *cli) refValues(files []string) (map[string]json.RawMessage, error) {
	values := map[string]json.RawMessage{}
	if len(files) == 0 {
		return values, nil
	}
	all, err := c.readManifests(files)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Kind != docRefValue {
			continue
		}
		v, err := all[i].refValue()
		if err != nil {
			return nil, usagef("%s: %w", all[i].origin, err)
		}
		values[v.Name] = v.Value
	}
	return values, nil
}

// testResult is one test of a policy.
type testResult struct {
	Name   string `json:"name"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	Result string `json:"result"` // "pass", "fail", "error" or "skip"
	Error  string `json:"error,omitempty"`
}

// runPolicyTests runs the cases, and the tests in Rego.
func (c *cli) runPolicyTests(ctx context.Context, t *policyTests) error {
	if err := t.runRego(ctx); err != nil {
		return err
	}
	host := c.policyHost()
	defer host.Close()
	for _, f := range t.cases {
		r, err := f.run(ctx, host, t)
		if err != nil {
			return usagef("%s: %w", t.file, err)
		}
		t.results = append(t.results, r)
	}
	slices.SortStableFunc(t.results, func(a, b testResult) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), strings.Compare(a.Name, b.Name))
	})
	return nil
}

func (t *policyTests) runRego(ctx context.Context) error {
	query := &rego.Function{
		Name: "query_reference_value", Decl: types.NewFunction(types.Args(types.S), types.A),
		Memoize: true, Nondeterministic: true,
	}
	answer := func(_ rego.BuiltinContext, name *ast.Term) (*ast.Term, error) {
		s, _ := name.Value.(ast.String)
		raw, ok := t.values[string(s)]
		if !ok {
			return ast.NullTerm(), nil
		}
		v, err := ast.ValueFromReader(bytes.NewReader(raw))
		return ast.NewTerm(v), err
	}
	ch, err := tester.NewRunner().
		SetDefaultRegoVersion(ast.RegoV1).
		RaiseBuiltinErrors(true).
		AddCustomBuiltins([]*tester.Builtin{{
			Decl: &ast.Builtin{Name: query.Name, Decl: query.Decl}, Func: rego.Function1(query, answer),
		}, {
			Decl: &ast.Builtin{Name: policy.AtLeastFunction.Name, Decl: policy.AtLeastFunction.Decl},
			Func: rego.Function2(policy.AtLeastFunction, policy.AtLeast),
		}}).
		SetCoverageQueryTracer(t.cover).
		SetModules(t.modules).
		RunTests(ctx, nil)
	if err != nil {
		return usagef("%w", err)
	}
	for r := range ch {
		t.results = append(t.results, resultOf(r))
	}
	return nil
}

func resultOf(r *tester.Result) testResult {
	t := testResult{Name: strings.TrimPrefix(r.Package, "data.") + "." + r.Name, Result: "pass"}
	if r.Location != nil {
		t.File, t.Line = r.Location.File, r.Location.Row
	}
	switch {
	case r.Error != nil:
		t.Result, t.Error = "error", r.Error.Error()
	case r.Skip:
		t.Result = "skip"
	case !r.Pass():
		t.Result = "fail"
	}
	return t
}

// count returns how many tests passed, and how many did not.
func (t *policyTests) count() (passed, bad int) {
	for _, r := range t.results {
		switch r.Result {
		case "pass":
			passed++
		case "fail", "error":
			bad++
		}
	}
	return passed, bad
}

func (c *cli) printPolicyTests(t *policyTests, coverage bool, least float64) error {
	passed, bad := t.count()
	seen := t.coverage()
	if c.flags.output != "table" {
		out := map[string]any{"items": append([]testResult{}, t.results...), "coverage": seen}
		if err := c.printData(out); err != nil {
			return err
		}
	} else if err := c.printTestTable(t, passed, seen, coverage); err != nil {
		return err
	}
	if seen.Percent < least {
		c.warnf("%.1f %% of the lines were run, and %.1f %% are wanted", seen.Percent, least)
		return errTestsFailed
	}
	if bad > 0 {
		return errTestsFailed
	}
	return nil
}

func (c *cli) printTestTable(t *policyTests, passed int, seen coverageReport, coverage bool) error {
	for _, r := range t.results {
		if r.Result == "pass" {
			continue
		}
		if err := c.printf("%s  %s:%d  %s  %s\n", r.Result, r.File, r.Line, clean(r.Name), clean(r.Error)); err != nil {
			return err
		}
	}
	if coverage {
		for _, r := range seen.Rules {
			if err := c.printf("not run  %s:%s  %s\n", t.file, ranges(r.NotRun), r.Rule); err != nil {
				return err
			}
		}
	}
	if err := c.printf("%s: compiles; %d of %d tests passed", t.file, passed, len(t.results)); err != nil {
		return err
	}
	if coverage {
		return c.printf("; %.1f %% of lines run\n", seen.Percent)
	}
	return c.printf("\n")
}
