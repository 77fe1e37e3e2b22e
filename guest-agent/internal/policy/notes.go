package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Bounds of what a policy notes: the host decides how often.
const (
	maxOps   = 256
	maxNotes = 1 << 20 // bytes of JSON
)

// notesRoot is where notes lie in data, and so how every path of a patch begins.
const notesRoot = "pstate"

var errNoSuch = errors.New("there is nothing at this path")

// change is one step of a JSON Patch (RFC 6902) below the notes.
type change struct {
	op    string // add, remove, replace or test
	path  []string
	value any
}

// parseOps reads what a rule returned. Operations that copy within the notes are
// not needed by policies, which can compute the value.
func parseOps(raw any) ([]change, error) {
	list, ok := raw.([]any)
	if !ok {
		return nil, fmt.Errorf("want an array, not %T", raw)
	}
	if len(list) > maxOps {
		return nil, fmt.Errorf("%d steps, at most %d are taken", len(list), maxOps)
	}
	var ops []change
	for i, item := range list {
		m, _ := item.(map[string]any)
		op, _ := m["op"].(string)
		path, _ := m["path"].(string)
		value, hasValue := m["value"]
		if !slices.Contains([]string{"add", "remove", "replace", "test"}, op) || (op != "remove" && !hasValue) {
			return nil, fmt.Errorf("[%d]: no operation that is known", i)
		}
		tokens := strings.Split(path, "/")
		if len(tokens) < 3 || tokens[0] != "" || tokens[1] != notesRoot {
			return nil, fmt.Errorf("[%d]: the path must begin with /%s/", i, notesRoot)
		}
		for j, t := range tokens {
			tokens[j] = strings.NewReplacer("~1", "/", "~0", "~").Replace(t)
		}
		ops = append(ops, change{op, tokens[2:], value})
	}
	return ops, nil
}

// patch returns changed notes, and what takes the changes back. The notes given
// stay as they are.
func patch(notes map[string]any, ops []change) (map[string]any, []change, error) {
	var back []change
	var node any = notes
	for i, c := range ops {
		changed, inverse, err := edit(node, c.path, c)
		if err != nil {
			return nil, nil, fmt.Errorf("[%d]: %s /%s: %w", i, c.op, strings.Join(c.path, "/"), err)
		}
		node = changed
		if inverse.op != "" {
			inverse.path = append(slices.Clone(c.path[:len(c.path)-1]), inverse.path...)
			back = append(back, inverse)
		}
	}
	slices.Reverse(back)
	out, _ := node.(map[string]any)
	size, err := json.Marshal(out)
	if err != nil {
		return nil, nil, err
	}
	if len(size) > maxNotes {
		return nil, nil, fmt.Errorf("the notes would grow beyond %d bytes", maxNotes)
	}
	return out, back, nil
}

func onlyRemoves(ops []change) bool {
	return !slices.ContainsFunc(ops, func(c change) bool { return c.op != "remove" && c.op != "test" })
}

// repatch makes changes later than they were decided, as far as that is still
// possible: what others have changed meanwhile stays.
func repatch(notes map[string]any, changes []change) map[string]any {
	var node any = notes
	for _, c := range changes {
		if changed, _, err := edit(node, c.path, c); err == nil {
			node = changed
		}
	}
	out, _ := node.(map[string]any)
	return out
}

// edit returns a copy of node with the change made at path below it. The
// inverse's path is the last token alone.
func edit(node any, path []string, c change) (any, change, error) {
	if len(path) > 1 {
		child, err := member(node, path[0])
		if err != nil {
			return nil, change{}, err
		}
		changed, inverse, err := edit(child, path[1:], c)
		if err != nil {
			return nil, change{}, err
		}
		return with(node, path[0], changed), inverse, nil
	}
	switch at := node.(type) {
	case map[string]any:
		return editObject(at, path[0], c)
	case []any:
		return editArray(at, path[0], c)
	}
	return nil, change{}, errNoSuch
}

func member(node any, token string) (any, error) {
	switch at := node.(type) {
	case map[string]any:
		if v, ok := at[token]; ok {
			return v, nil
		}
	case []any:
		if i, ok := index(at, token); ok && i < len(at) {
			return at[i], nil
		}
	}
	return nil, errNoSuch
}

// with replaces a member that exists.
func with(node any, token string, v any) any {
	switch at := node.(type) {
	case map[string]any:
		at = maps.Clone(at)
		at[token] = v
		return at
	case []any:
		at = slices.Clone(at)
		if i, ok := index(at, token); ok && i < len(at) {
			at[i] = v
		}
		return at
	}
	return node
}

func editObject(at map[string]any, key string, c change) (any, change, error) {
	old, exists := at[key]
	if !exists && c.op != "add" {
		return nil, change{}, errNoSuch
	}
	out := maps.Clone(at)
	inverse := change{"add", []string{key}, old}
	switch c.op {
	case "test":
		return out, change{}, test(old, c.value)
	case "remove":
		delete(out, key)
		return out, inverse, nil
	}
	out[key] = c.value
	if !exists {
		inverse = change{op: "remove", path: []string{key}}
	}
	return out, inverse, nil
}

// editArray has no inverse: the index may be another's by then.
func editArray(at []any, token string, c change) (any, change, error) {
	i, ok := index(at, token)
	if !ok || (i == len(at) && c.op != "add") {
		return nil, change{}, errNoSuch
	}
	out := slices.Clone(at)
	switch c.op {
	case "test":
		return out, change{}, test(at[i], c.value)
	case "add":
		out = slices.Insert(out, i, c.value)
	case "remove":
		out = slices.Delete(out, i, i+1)
	default:
		out[i] = c.value
	}
	return out, change{}, nil
}

// index returns a place in an array, or the one after its end.
func index(at []any, token string) (int, bool) {
	if token == "-" {
		return len(at), true
	}
	i, err := strconv.Atoi(token)
	return i, err == nil && i >= 0 && i <= len(at) && strconv.Itoa(i) == token
}

func test(got, want any) error {
	if !reflect.DeepEqual(got, want) {
		return errors.New("the test fails")
	}
	return nil
}
