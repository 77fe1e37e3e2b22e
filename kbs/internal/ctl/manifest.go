package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/refvalue"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Limits of what apply reads.
const (
	maxManifests = 8 << 20 // bytes of one file
	maxDocuments = 1000    // in one file
	maxRego      = policy.MaxSize
	maxResource  = resource.MaxValue
)

// manifest is one document that apply takes.
type manifest struct {
	Kind     string   `yaml:"kind"`
	Metadata metadata `yaml:"metadata"`
	Spec     spec     `yaml:"spec"`

	origin string // file and number, for messages
	dir    string // where relative paths start
}

type metadata struct {
	Name    string `yaml:"name"`
	Version int64  `yaml:"version,omitempty"` // 0: whatever apply reads
}

// spec has the members of every kind; check says which belong together. One
// strict type gives errors with line numbers for all of them.
type spec struct {
	Rego      string    `yaml:"rego,omitempty"`
	RegoFile  string    `yaml:"regoFile,omitempty"`
	Value     yaml.Node `yaml:"value,omitempty"`
	Expires   string    `yaml:"expires,omitempty"`
	ValueFile string    `yaml:"valueFile,omitempty"`
	About     *about    `yaml:"about,omitempty"`
	Stage     string    `yaml:"stage,omitempty"`
}

// about is an api.ResourceMeta, under the names of its JSON.
type about struct {
	Owner       string            `yaml:"owner,omitempty"`
	Purpose     string            `yaml:"purpose,omitempty"`
	ContentType string            `yaml:"content_type,omitempty"`
	Expires     time.Time         `yaml:"expires,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Images      []string          `yaml:"images,omitempty"`
	Hold        string            `yaml:"hold,omitempty"`
}

func (a *about) meta() *api.ResourceMeta {
	if a == nil {
		return nil
	}
	m := api.ResourceMeta(*a)
	return &m
}

// The kinds of documents.
const (
	docPolicy   = "Policy"
	docRefValue = "RefValue"
	docResource = "Resource"
)

// parseManifests reads a stream of YAML or JSON documents. Unknown members,
// wrong combinations and a second document about the same object are errors;
// empty documents are skipped.
//
// A message to the field's reference value provider (kbs-protocol 12.1) is read
// as the values in it.
func parseManifests(raw []byte, origin, dir string) ([]manifest, error) {
	if isMessage(raw) {
		return messageManifests(raw, origin)
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	var all []manifest
	for n := 1; ; n++ {
		m := manifest{origin: fmt.Sprintf("%s: document %d", origin, n), dir: dir}
		err := dec.Decode(&m)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s", m.origin, goTypes.ReplaceAllString(err.Error(), "unknown key $1"))
		}
		if n > maxDocuments {
			return nil, fmt.Errorf("%s: more than %d documents", origin, maxDocuments)
		}
		if m.Kind == "" && m.Metadata == (metadata{}) && m.Spec.empty() {
			continue
		}
		if err := m.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", m.origin, err)
		}
		all = append(all, m)
	}
}

// goTypes is how the library names an unknown key: by the type that lacks it.
var goTypes = regexp.MustCompile(`field (\S+) not found in type \S+`)

// isMessage tells a message from documents: it has a payload, and no kind.
func isMessage(raw []byte) bool {
	members, err := strictjson.Members(raw)
	return err == nil && members["payload"] != nil && members["kind"] == nil
}

func messageManifests(raw []byte, origin string) ([]manifest, error) {
	values, err := refvalue.ParseRVPSMessage(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", origin, err)
	}
	var all []manifest
	for i, v := range values {
		v.Version = 0 // whatever apply reads
		m := refValueManifest(v)
		m.origin = fmt.Sprintf("%s: value %d", origin, i+1)
		if err := m.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", m.origin, err)
		}
		all = append(all, *m)
	}
	return all, nil
}

func (s *spec) empty() bool {
	return s.Rego == "" && s.RegoFile == "" && s.Value.IsZero() && s.Expires == "" && s.ValueFile == "" && s.About == nil && s.Stage == ""
}

func (m *manifest) check() error {
	if m.Metadata.Name == "" {
		return errors.New("metadata.name is missing")
	}
	if m.Metadata.Version < 0 {
		return errors.New("metadata.version must not be negative")
	}
	s := &m.Spec
	allowed := map[string]bool{}
	switch m.Kind {
	case docPolicy:
		if _, _, err := splitPolicy(m.Metadata.Name); err != nil {
			return err
		}
		if (s.Rego == "") == (s.RegoFile == "") {
			return errors.New("a Policy has either spec.rego or spec.regoFile")
		}
		if s.Stage != "" && !slices.Contains(writeStages, s.Stage) {
			return fmt.Errorf("spec.stage is %s, not %q", strings.Join(writeStages, ", "), s.Stage)
		}
		allowed["rego"], allowed["regoFile"], allowed["stage"] = true, true, true
	case docRefValue:
		if s.Value.IsZero() {
			return errors.New("spec.value is missing")
		}
		if _, err := m.refValue(); err != nil {
			return err
		}
		allowed["value"], allowed["expires"] = true, true
	case docResource:
		if _, err := resourcePath(m.Metadata.Name); err != nil {
			return err
		}
		if s.ValueFile == "" && s.About == nil {
			return errors.New("a Resource has spec.valueFile, spec.about or both")
		}
		if s.About != nil {
			if err := resource.CheckMeta(*s.About.meta()); err != nil {
				return err
			}
		}
		allowed["valueFile"], allowed["about"] = true, true
	default:
		return fmt.Errorf("kind is %q, want %s, %s or %s", m.Kind, docPolicy, docRefValue, docResource)
	}
	for member, given := range map[string]bool{
		"rego": s.Rego != "", "regoFile": s.RegoFile != "", "value": !s.Value.IsZero(),
		"expires": s.Expires != "", "valueFile": s.ValueFile != "", "about": s.About != nil, "stage": s.Stage != "",
	} {
		if given && !allowed[member] {
			return fmt.Errorf("a %s has no spec.%s", m.Kind, member)
		}
	}
	return nil
}

// target is the object's name as kbsctl prints it, for example
// policy/resource/resource-policy.
func (m *manifest) target() string { return strings.ToLower(m.Kind) + "/" + m.Metadata.Name }

// policy returns the policy that m asks for, reading spec.regoFile.
func (m *manifest) policy() (api.Policy, error) {
	k, id, err := splitPolicy(m.Metadata.Name)
	if err != nil {
		return api.Policy{}, err
	}
	p := api.Policy{Kind: k, ID: id, Version: m.Metadata.Version, Rego: m.Spec.Rego, Stage: m.Spec.Stage}
	if m.Spec.RegoFile != "" {
		b, err := given.File(m.path(m.Spec.RegoFile), maxRego)
		if err != nil {
			return api.Policy{}, usagef("%s: %w", m.origin, err)
		}
		p.Rego = string(b)
	}
	return p, nil
}

// refValue returns the reference value that m asks for.
func (m *manifest) refValue() (api.RefValue, error) {
	v := api.RefValue{Name: m.Metadata.Name, Version: m.Metadata.Version}
	value, err := yamlToJSON(&m.Spec.Value)
	if err != nil {
		return v, fmt.Errorf("spec.value: %w", err)
	}
	v.Value = value
	v.Expires, err = parseExpiry(m.Spec.Expires)
	return v, err
}

func (m *manifest) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(m.dir, p)
}

// parseExpiry reads a time (RFC 3339) or a day, whose end it means; "" is no time.
func parseExpiry(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), nil
	}
	day, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither a time like 2027-01-31T12:00:00Z nor a day like 2027-01-31", s)
	}
	return day.AddDate(0, 0, 1), nil
}

func policyManifest(p api.Policy) *manifest {
	return &manifest{
		Kind: docPolicy, Metadata: metadata{Name: p.Kind + "/" + p.ID, Version: p.Version},
		Spec: spec{Rego: p.Rego},
	}
}

func refValueManifest(v api.RefValue) *manifest {
	v = ownWord(v)
	m := &manifest{Kind: docRefValue, Metadata: metadata{Name: v.Name, Version: v.Version}}
	if !v.Expires.IsZero() {
		m.Spec.Expires = v.Expires.UTC().Format(time.RFC3339)
	}
	dec := json.NewDecoder(bytes.NewReader(v.Value))
	dec.UseNumber()
	if node, err := yamlNode(dec, 0); err == nil {
		m.Spec.Value = *node
	}
	return m
}

// yaml writes the document that parseManifests reads back. Lines of a policy
// are kept as they are where YAML can.
func (m *manifest) yaml() ([]byte, error) { return encodeYAML(m) }

// yamlToJSON converts a value whose mappings have string keys. What YAML makes
// a time stays the text that was written; what JSON cannot say is an error, and
// so is an alias, which could make a small document a large one.
func yamlToJSON(n *yaml.Node) (json.RawMessage, error) {
	var buf bytes.Buffer
	if err := writeJSON(&buf, n, 0); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func writeJSON(buf *bytes.Buffer, n *yaml.Node, depth int) error {
	if depth > maxDepth {
		return errors.New("nested too deeply")
	}
	switch n.Kind {
	case yaml.SequenceNode:
		return writeList(buf, '[', n.Content, depth)
	case yaml.MappingNode:
		seen := map[string]bool{}
		for i := 0; i < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
				return fmt.Errorf("line %d: a key that is not a string", k.Line)
			}
			if seen[k.Value] {
				return fmt.Errorf("line %d: %q comes twice", k.Line, k.Value)
			}
			seen[k.Value] = true
		}
		return writeList(buf, '{', n.Content, depth)
	case yaml.ScalarNode:
		return writeScalar(buf, n)
	default:
		return fmt.Errorf("line %d: aliases are not accepted", n.Line)
	}
}

func writeList(buf *bytes.Buffer, open byte, content []*yaml.Node, depth int) error {
	buf.WriteByte(open)
	for i, child := range content {
		switch {
		case i == 0:
		case open == '{' && i%2 == 1:
			buf.WriteByte(':')
		default:
			buf.WriteByte(',')
		}
		if err := writeJSON(buf, child, depth+1); err != nil {
			return err
		}
	}
	buf.WriteByte(open + 2) // '[' and ']', '{' and '}' are two apart
	return nil
}

func writeScalar(buf *bytes.Buffer, n *yaml.Node) error {
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		b, err := json.Marshal(n.Value)
		buf.Write(b)
		return err
	case "!!null":
		buf.WriteString("null")
		return nil
	case "!!bool":
		var v bool
		if err := n.Decode(&v); err != nil {
			return err
		}
		fmt.Fprint(buf, v)
		return nil
	case "!!int":
		v, ok := new(big.Int).SetString(strings.ReplaceAll(n.Value, "_", ""), 0)
		if !ok {
			return fmt.Errorf("line %d: %q is not a number", n.Line, n.Value)
		}
		buf.WriteString(v.String())
		return nil
	case "!!float":
		if json.Valid([]byte(n.Value)) {
			buf.WriteString(n.Value) // digit for digit
			return nil
		}
		var v float64
		if err := n.Decode(&v); err != nil {
			return err
		}
		b, err := json.Marshal(v)
		buf.Write(b)
		return err
	}
	return fmt.Errorf("line %d: JSON has no %s", n.Line, n.ShortTag())
}
