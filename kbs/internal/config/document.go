package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"go.yaml.in/yaml/v3"
)

// maxDepth limits nesting: no configuration nests deeper than six.
const maxDepth = 16

// document is one source of settings, of whatever syntax: a tree of
// map[string]any, []any, string, bool, int64 and float64, and the line on
// which each path was written. Paths look like "plugins[0].name".
type document struct {
	tree  map[string]any
	lines map[string]int
}

// parse reads a document in the syntax of its file's extension, as the
// field's broker does; anything but YAML and JSON is TOML.
func parse(path string, raw []byte) (document, error) {
	if len(raw) > maxSize {
		return document{}, fmt.Errorf("configuration is larger than %d bytes", maxSize)
	}
	d := document{tree: map[string]any{}, lines: map[string]int{}}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".yaml", ".yml":
		return d, d.parseYAML(raw)
	case ".json":
		return d, d.parseJSON(raw)
	}
	return d, d.parseTOML(raw)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func (d *document) parseTOML(raw []byte) error {
	err := toml.Unmarshal(raw, &d.tree)
	if wrong, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := wrong.Position()
		return fmt.Errorf("line %d: %s", row, strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	if err != nil {
		return err
	}
	return d.linesTOML(raw)
}

// linesTOML goes through the text once more, for the lines alone.
func (d *document) linesTOML(raw []byte) error {
	var p unstable.Parser
	p.Reset(raw)
	prefix, counts := "", map[string]int{}
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind { //nolint:exhaustive // expressions have no others
		case unstable.Table:
			prefix = d.keyTOML(&p, e, "", counts)
		case unstable.ArrayTable:
			path := d.keyTOML(&p, e, "", counts)
			prefix = index(path, counts[path])
			counts[path]++
		case unstable.KeyValue:
			d.valueTOML(&p, e, prefix, counts)
		}
	}
	return p.Error()
}

// keyTOML notes the line of a key and returns its path. A segment that names
// an array of tables means the last of them.
func (d *document) keyTOML(p *unstable.Parser, e *unstable.Node, prefix string, counts map[string]int) string {
	path := prefix
	for it := e.Key(); it.Next(); {
		if n := counts[path]; n > 0 {
			path = index(path, n-1)
		}
		path = join(path, string(it.Node().Data))
		if _, ok := d.lines[path]; !ok {
			d.lines[path] = p.Shape(it.Node().Raw).Start.Line
		}
	}
	return path
}

func (d *document) valueTOML(p *unstable.Parser, e *unstable.Node, prefix string, counts map[string]int) {
	path := d.keyTOML(p, e, prefix, counts)
	if e.Value().Kind == unstable.InlineTable {
		for it := e.Value().Children(); it.Next(); {
			d.valueTOML(p, it.Node(), path, counts)
		}
	}
}

func (d *document) parseYAML(raw []byte) error {
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var root yaml.Node
	if err := dec.Decode(&root); errors.Is(err, io.EOF) {
		return nil // an empty file
	} else if err != nil {
		return fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("more than one YAML document")
	}
	v, err := d.nodeYAML("", root.Content[0], 0)
	if err != nil {
		return err
	}
	return d.root(v)
}

func (d *document) root(v any) error {
	if v == nil {
		return nil
	}
	tree, ok := v.(map[string]any)
	if !ok {
		return errors.New("line 1: the configuration must be a table")
	}
	d.tree = tree
	return nil
}

func (d *document) nodeYAML(path string, n *yaml.Node, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("line %d: nested deeper than %d", n.Line, maxDepth)
	}
	if path != "" && d.lines[path] == 0 {
		d.lines[path] = n.Line
	}
	switch n.Kind { //nolint:exhaustive // documents have no others
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if _, twice := out[key.Value]; twice || key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
				return nil, fmt.Errorf("line %d: %q is not a key of its own", key.Line, key.Value)
			}
			d.lines[join(path, key.Value)] = key.Line
			v, err := d.nodeYAML(join(path, key.Value), n.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			out[key.Value] = v
		}
		return out, nil
	case yaml.SequenceNode:
		out := make([]any, len(n.Content))
		for i, c := range n.Content {
			v, err := d.nodeYAML(index(path, i), c, depth+1)
			if err != nil {
				return nil, err
			}
			out[i] = v
		}
		return out, nil
	case yaml.ScalarNode:
		return scalarYAML(n)
	default:
		return nil, fmt.Errorf("line %d: aliases are not supported", n.Line) // they multiply
	}
}

func scalarYAML(n *yaml.Node) (any, error) {
	var v any
	if err := n.Decode(&v); err != nil {
		return nil, fmt.Errorf("line %d: %w", n.Line, err)
	}
	if i, ok := v.(int); ok {
		return int64(i), nil
	}
	return v, nil
}

func (d *document) parseJSON(raw []byte) error {
	p := jsonParser{doc: d, raw: raw, dec: json.NewDecoder(bytes.NewReader(raw))}
	p.dec.UseNumber()
	v, err := p.value("", 0)
	if err == nil {
		if _, end := p.dec.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("data after the configuration")
		}
	}
	if err != nil {
		return fmt.Errorf("line %d: %w", p.line(), err)
	}
	return d.root(v)
}

type jsonParser struct {
	doc *document
	raw []byte
	dec *json.Decoder
}

func (p *jsonParser) line() int {
	return 1 + bytes.Count(p.raw[:min(int(p.dec.InputOffset()), len(p.raw))], []byte("\n"))
}

func (p *jsonParser) value(path string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	t, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '[' {
			return p.list(path, depth)
		}
		return p.table(path, depth)
	case json.Number:
		if i, err := t.Int64(); err == nil {
			return i, nil
		}
		return t.Float64()
	}
	return t, nil
}

func (p *jsonParser) list(path string, depth int) (any, error) {
	out := []any{}
	for p.dec.More() {
		v, err := p.value(index(path, len(out)), depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	_, err := p.dec.Token()
	return out, err
}

func (p *jsonParser) table(path string, depth int) (any, error) {
	out := map[string]any{}
	for p.dec.More() {
		t, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		key, _ := t.(string)
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("%s is given twice", join(path, key))
		}
		p.doc.lines[join(path, key)] = p.line()
		if out[key], err = p.value(join(path, key), depth+1); err != nil {
			return nil, err
		}
	}
	_, err := p.dec.Token()
	return out, err
}
