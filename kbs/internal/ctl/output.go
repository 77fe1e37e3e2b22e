package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// object is one thing to print, in every form that it has.
type object struct {
	kind     string
	name     string
	version  int64            // what a change wants to find; 0 where there are none
	data     any              // the API's object: json and yaml
	row      []string         // table
	manifest func() *manifest // what apply takes; nil where there is no such thing
	describe func(*sheet)     // for people; nil where the table says all
	shown    func()           // says what somebody who looks at it should know; may be nil
}

var outputs = []string{"table", "json", "yaml", "name", "manifest"}

func checkOutput(format string) error {
	if !slices.Contains(outputs, format) {
		return usagef("unknown output format %q", format).hint("-o %s", strings.Join(outputs, "|"))
	}
	return nil
}

// print writes objects as -o says. Of one object that was asked for by name
// the data is printed bare, of a list as {"items": [...]}.
func (c *cli) print(objects []object, header []string, list bool) error {
	switch c.flags.output {
	case "name":
		for _, o := range objects {
			if err := c.printf("%s/%s\n", o.kind, clean(o.name)); err != nil {
				return err
			}
		}
		return nil
	case "manifest":
		return c.printManifests(objects)
	case "json", "yaml":
		if !list && len(objects) == 1 {
			return c.printData(objects[0].data)
		}
		data := make([]any, 0, len(objects))
		for _, o := range objects {
			data = append(data, o.data)
		}
		return c.printData(map[string]any{"items": data})
	}
	rows := make([][]string, 0, len(objects))
	for _, o := range objects {
		rows = append(rows, o.row)
	}
	return c.printTable(header, rows)
}

// printData writes v as json, or as yaml with the same keys in the same order.
func (c *cli) printData(v any) error {
	b, err := encodeJSON(v)
	if err != nil {
		return err
	}
	if c.flags.output == "yaml" {
		if b, err = jsonToYAML(b); err != nil {
			return err
		}
	}
	_, err = c.stdio.Out.Write(b)
	return err
}

func (c *cli) printTable(header []string, rows [][]string) error {
	w := tabwriter.NewWriter(c.stdio.Out, 0, 8, 3, ' ', 0)
	if !c.flags.noHeaders {
		_, _ = fmt.Fprintln(w, strings.Join(header, "\t"))
	}
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, s := range r {
			cells[i] = cell(s)
		}
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

func (c *cli) printManifests(objects []object) error {
	for i, o := range objects {
		if o.manifest == nil {
			return usagef("a %s has no manifest", o.kind).hint("-o yaml")
		}
		if i > 0 {
			if err := c.printf("---\n"); err != nil {
				return err
			}
		}
		b, err := o.manifest().yaml()
		if err != nil {
			return err
		}
		if _, err := c.stdio.Out.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func encodeJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return escapeUnprintable(buf.Bytes()), err
}

// escapeUnprintable makes JSON safe for a terminal and leaves its meaning: what
// is not ASCII lies within strings, where an escape says the same.
func escapeUnprintable(b []byte) []byte {
	if bytes.IndexFunc(b, func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }) < 0 {
		return b
	}
	var out []byte
	for _, r := range string(b) {
		if r < 0x7f || unicode.IsPrint(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, u := range utf16.Encode([]rune{r}) {
			out = fmt.Appendf(out, `\u%04x`, u)
		}
	}
	return out
}

// jsonToYAML keeps the order of members, which a detour over maps would lose.
func jsonToYAML(b []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	node, err := yamlNode(dec, 0)
	if err != nil {
		return nil, err
	}
	return encodeYAML(node)
}

func encodeYAML(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	err := enc.Close()
	return buf.Bytes(), err
}

const maxDepth = 100 // of nested values

func yamlNode(dec *json.Decoder, depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, errors.New("the value is nested too deeply")
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return yamlScalar(tok), nil
	}
	node := &yaml.Node{Kind: yaml.SequenceNode}
	if delim == '{' {
		node.Kind = yaml.MappingNode
	}
	for dec.More() {
		child, err := yamlNode(dec, depth+1)
		if err != nil {
			return nil, err
		}
		node.Content = append(node.Content, child)
	}
	if len(node.Content) == 0 {
		node.Style = yaml.FlowStyle
	}
	_, err = dec.Token() // the closing delimiter
	return node, err
}

// oldBools are words that readers of YAML 1.1 take for booleans.
var oldBools = []string{"y", "n", "yes", "no", "on", "off"}

func yamlScalar(tok json.Token) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode}
	switch v := tok.(type) {
	case string:
		node.SetString(v) // literal style for more than one line
		if slices.Contains(oldBools, strings.ToLower(v)) {
			node.Style = yaml.DoubleQuotedStyle
		}
	case json.Number:
		node.Tag, node.Value = "!!float", v.String()
		if !strings.ContainsAny(v.String(), ".eE") {
			node.Tag = "!!int"
		}
	case bool:
		node.Tag, node.Value = "!!bool", fmt.Sprint(v)
	default:
		node.Tag, node.Value = "!!null", "null"
	}
	return node
}

// sheet writes one object for people: lines of a label and a value.
type sheet struct {
	w   io.Writer
	err error
}

// line writes a label with its value; further lines of the value are aligned.
// An empty value writes nothing.
func (s *sheet) line(label, value string) {
	if value == "" || s.err != nil {
		return
	}
	const width = 10
	first := true
	for l := range strings.Lines(clean(value)) {
		head := ""
		if first {
			head = label
		}
		text := fmt.Sprintf("%-*s%s", width, head, strings.TrimRight(l, "\n"))
		_, s.err = fmt.Fprintln(s.w, strings.TrimRight(text, " "))
		first = false
	}
}

// block writes a text indented under its title.
func (s *sheet) block(title, text string) {
	if text == "" || s.err != nil {
		return
	}
	_, s.err = fmt.Fprintf(s.w, "%s\n", title)
	for l := range strings.Lines(clean(strings.ReplaceAll(text, "\t", "    "))) {
		if s.err == nil {
			_, s.err = fmt.Fprintln(s.w, strings.TrimRight("  "+strings.TrimRight(l, "\n"), " "))
		}
	}
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && cmd.HasSubCommands() {
		cmd.SuggestionsMinimumDistance = 2
		err := usagef("%s has no command %q", cmd.CommandPath(), args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return err.hint("%s %s", cmd.CommandPath(), strings.Join(near, ", or "+cmd.CommandPath()+" "))
		}
		return err.hint("%s --help", cmd.CommandPath())
	}
	if len(args) > 0 {
		return usagef("%s takes no argument %q", cmd.CommandPath(), args[0]).hint("%s --help", cmd.CommandPath())
	}
	return nil
}

func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("want: kbsctl %s", strings.TrimPrefix(cmd.UseLine(), "kbsctl ")).hint("%s --help", cmd.CommandPath())
		}
		return nil
	}
}

func oneOrTwo(cmd *cobra.Command, args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return usagef("%d arguments given, 1 or 2 wanted", len(args)).hint("%s --help", cmd.CommandPath())
	}
	return nil
}

func minArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return usagef("want: kbsctl %s", strings.TrimPrefix(cmd.UseLine(), "kbsctl ")).hint("%s --help", cmd.CommandPath())
		}
		return nil
	}
}
