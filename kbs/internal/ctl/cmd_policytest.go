package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/types"
	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

func (c *cli) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Test policies before they bite",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.policyTestCommand())
	return cmd
}

const policyTestLong = `Compile a policy exactly as the broker does, and run the tests beside it. Tests
are rules whose names start with test_, in FILE_test.rego or in the files given
after the policy; they set input, data and query_reference_value by "with".
Without such an override query_reference_value answers from --refvalues.

No broker is needed. The exit code is 2 if a test fails.`

func (c *cli) policyTestCommand() *cobra.Command {
	var values []string
	cmd := &cobra.Command{
		Use:   "test FILE.rego [FILE_test.rego...]",
		Short: "Compile a policy and run its tests, offline",
		Long:  policyTestLong,
		Example: `  kbsctl policy test release.rego
  kbsctl policy test cpu.rego cpu_test.rego --refvalues refvalues.yaml`,
		Args: minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			modules, err := policyModules(args)
			if err != nil {
				return err
			}
			refs, err := c.refValues(values)
			if err != nil {
				return err
			}
			results, err := runPolicyTests(cmd.Context(), modules, refs)
			if err != nil {
				return err
			}
			return c.printPolicyTests(args[0], results)
		},
	}
	cmd.Flags().StringArrayVar(&values, "refvalues", nil, "`file` or directory of RefValue documents (repeatable)")
	return cmd
}

// policyModules reads the policy, compiles it under the broker's rules, and
// reads the tests.
func policyModules(files []string) (map[string]*ast.Module, error) {
	if len(files) == 1 {
		beside := strings.TrimSuffix(files[0], ".rego") + "_test.rego"
		if found, err := filepath.Glob(beside); err == nil && len(found) == 1 {
			files = append(files, beside)
		}
	}
	modules := map[string]*ast.Module{}
	for i, f := range files {
		b, err := readFile(f, maxRego)
		if err != nil {
			return nil, usagef("%w", err)
		}
		if i == 0 {
			if err := policy.Check(policy.Resource, string(b)); err != nil {
				return nil, usagef("%s: %w", f, err)
			}
		}
		m, err := ast.ParseModuleWithOpts(f, string(b), ast.ParserOptions{RegoVersion: ast.RegoV1})
		if err != nil {
			return nil, usagef("%w", err)
		}
		modules[f] = m
	}
	return modules, nil
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

func runPolicyTests(ctx context.Context, modules map[string]*ast.Module, values map[string]json.RawMessage) ([]testResult, error) {
	query := &rego.Function{
		Name: "query_reference_value", Decl: types.NewFunction(types.Args(types.S), types.A),
		Memoize: true, Nondeterministic: true,
	}
	answer := func(_ rego.BuiltinContext, name *ast.Term) (*ast.Term, error) {
		s, _ := name.Value.(ast.String)
		raw, ok := values[string(s)]
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
		}}).
		SetModules(modules).
		RunTests(ctx, nil)
	if err != nil {
		return nil, usagef("%w", err)
	}
	var results []testResult
	for r := range ch {
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
		results = append(results, t)
	}
	slices.SortFunc(results, func(a, b testResult) int {
		return strings.Compare(fmt.Sprintf("%s %09d %s", a.File, a.Line, a.Name), fmt.Sprintf("%s %09d %s", b.File, b.Line, b.Name))
	})
	return results, nil
}

func (c *cli) printPolicyTests(file string, results []testResult) error {
	if results == nil {
		results = []testResult{}
	}
	bad, passed := 0, 0
	for _, r := range results {
		switch r.Result {
		case "pass":
			passed++
		case "fail", "error":
			bad++
		}
	}
	if c.flags.output != "table" {
		if err := c.printData(map[string]any{"items": results}); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			if r.Result == "pass" {
				continue
			}
			if err := c.printf("%s  %s:%d  %s  %s\n", r.Result, r.File, r.Line, clean(r.Name), clean(r.Error)); err != nil {
				return err
			}
		}
		if err := c.printf("%s: compiles; %d of %d tests passed\n", file, passed, len(results)); err != nil {
			return err
		}
	}
	if bad > 0 {
		return errTestsFailed
	}
	return nil
}
