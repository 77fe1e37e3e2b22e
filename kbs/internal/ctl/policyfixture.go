package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// fixture is one case of a FILE_test.yaml.
type fixture struct {
	Name      string               `yaml:"name"`
	Input     yaml.Node            `yaml:"input"`
	Data      fixtureData          `yaml:"data"`
	RefValues map[string]yaml.Node `yaml:"refvalues"`

	Allow   *bool           `yaml:"allow"`
	Status  token.Status    `yaml:"status"`
	Vector  map[string]int8 `yaml:"vector"`
	Explain []string        `yaml:"explain"`
	Error   bool            `yaml:"error"`

	file string
	line int
}

type fixtureData struct {
	Plugin string            `yaml:"plugin"`
	Path   []string          `yaml:"resource-path"`
	Query  map[string]string `yaml:"query"`
}

// readFixtures reads a list of cases. Unknown members are errors.
func readFixtures(raw []byte, file string) ([]fixture, error) {
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	var all []fixture
	if err := dec.Decode(&all); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var nodes []yaml.Node // once more, for the lines
	if err := yaml.Unmarshal(raw, &nodes); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for i := range all {
		f := &all[i]
		f.file, f.line = file, nodes[i].Line
		about := f.Status != "" || f.Vector != nil
		switch {
		case f.Name == "":
			return nil, fmt.Errorf("%s:%d: a case needs a name", file, f.line)
		case f.Input.IsZero():
			return nil, fmt.Errorf("%s:%d: %s: a case needs an input", file, f.line, f.Name)
		case f.Allow != nil && about, f.Allow == nil && !about && !f.Error:
			return nil, fmt.Errorf("%s:%d: %s: a case wants allow, or status and vector, or an error", file, f.line, f.Name)
		}
	}
	return all, nil
}

// kind tells by what a case wants which kind of policy it is about.
func (f *fixture) kind() policy.Kind {
	if f.Status != "" || f.Vector != nil {
		return policy.Attestation
	}
	return policy.Resource
}

// run asks the policy. The error is a mistake in the case.
func (f *fixture) run(ctx context.Context, host *policy.Host, t *policyTests) (testResult, error) {
	r := testResult{Name: f.Name, File: f.file, Line: f.line, Result: "pass"}
	trial, err := host.Try(ctx, f.kind(), t.file, t.text)
	if err != nil {
		return r, err
	}
	q, values, err := f.question(t.values)
	if err != nil {
		return r, fmt.Errorf("%s:%d: %w", f.file, f.line, err)
	}
	v, x := trial.Ask(ctx, q, values, t.cover)
	problems := f.problems(v.Allow, v.Vector, v.Error, x)
	if len(problems) > 0 {
		r.Result, r.Error = "fail", strings.Join(problems, "; ")
	}
	return r, nil
}

func (f *fixture) question(others map[string]json.RawMessage) (policy.Question, broughtValues, error) {
	raw, err := yamlToJSON(&f.Input)
	if err != nil {
		return policy.Question{}, nil, fmt.Errorf("input: %w", err)
	}
	in, err := policy.ParseInput(raw)
	if err != nil {
		return policy.Question{}, nil, err
	}
	values := broughtValues{}
	for name, v := range others {
		values[name] = v
	}
	for name, node := range f.RefValues {
		if values[name], err = yamlToJSON(&node); err != nil {
			return policy.Question{}, nil, fmt.Errorf("refvalues: %s: %w", name, err)
		}
	}
	return policy.Question{
		Kind: f.kind(), Input: in,
		Release: policy.Release{Plugin: f.Data.Plugin, Path: f.Data.Path, Query: f.Data.Query},
	}, values, nil
}

// problems compares what came with what was wanted.
func (f *fixture) problems(allow bool, vector token.Vector, failure string, x policy.Explanation) []string {
	if f.Error || failure != "" {
		if f.Error && failure != "" {
			return nil
		}
		return []string{fmt.Sprintf("error: %q, wanted %v", failure, f.Error)}
	}
	var out []string
	if f.Allow != nil && allow != *f.Allow {
		out = append(out, fmt.Sprintf("allow is %v, wanted %v", allow, *f.Allow))
	}
	if f.Status != "" && vector.Status() != f.Status {
		out = append(out, fmt.Sprintf("status is %s, wanted %s", vector.Status(), f.Status))
	}
	for _, name := range token.ClaimNames {
		if want, ok := f.Vector[name]; ok && vector[name] != want {
			out = append(out, fmt.Sprintf("%s is %d, wanted %d", name, vector[name], want))
		}
	}
	for name := range f.Vector {
		if !slices.Contains(token.ClaimNames, name) {
			out = append(out, fmt.Sprintf("there is no trust claim %s", name))
		}
	}
	if f.Explain != nil {
		var seen []string
		for _, finding := range x.Findings {
			seen = append(seen, finding.Claim)
		}
		slices.Sort(seen)
		want := slices.Sorted(slices.Values(f.Explain))
		if !slices.Equal(seen, want) {
			out = append(out, fmt.Sprintf("explained by %q, wanted %q", seen, want))
		}
	}
	return out
}
