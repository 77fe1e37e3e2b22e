package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/jsonstream"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Limits of the conditions of one requirement.
const (
	maxConditions = 64 // those within others count, too
	maxNesting    = 3  // of conditions about elements
	maxPointer    = jsonstream.MaxName
	maxSteps      = 32 // of one pointer
	maxChoices    = 64 // of one oneOf
)

// A condition is about one value of a predicate.
type condition struct {
	at   string // JSON pointer (RFC 6901)
	path []string
	test test
}

// A test is one of these.
type test struct {
	scalar func(jsonstream.Scalar) bool // of a text, a number or a flag
	exists *bool
	each   *each
}

// each is about the elements of a list.
type each struct {
	how   quantity
	where []condition // what an element must satisfy to count
}

type quantity string

// How many elements must count, of a list that must be there.
const (
	someElement  quantity = "any"
	everyElement quantity = "all" // of at least one
	noElement    quantity = "none"
)

// parseWhere takes the conditions of a requirement; none if there are none.
func parseWhere(doc *strictjson.Object) ([]condition, error) {
	var items []rawObject
	if _, err := doc.Take("where", &items); err != nil {
		return nil, err
	}
	p := conditionParser{left: maxConditions}
	return p.list(items)
}

type conditionParser struct {
	left  int // how many more there may be
	depth int // lists that the present one is about elements of
}

func (p *conditionParser) list(items []rawObject) ([]condition, error) {
	if p.left -= len(items); p.left < 0 {
		return nil, fmt.Errorf("more than %d conditions", maxConditions)
	}
	var all []condition
	for i, raw := range items {
		c, err := p.one(raw)
		if err != nil {
			return nil, fmt.Errorf("condition %d: %w", i, err)
		}
		all = append(all, c)
	}
	return all, nil
}

// A member says what is asked of a value.
type member struct {
	name  string
	parse func(t *test, raw json.RawMessage) error
}

func (p *conditionParser) members() []member {
	bound := func(sign int) func(*test, json.RawMessage) error {
		return func(t *test, raw json.RawMessage) error { return t.bound(raw, sign) }
	}
	all := []member{
		{"is", (*test).is}, {"oneOf", (*test).oneOf}, {"matches", (*test).pattern}, {"atLeast", bound(1)}, {"atMost", bound(-1)},
		{"exists", func(t *test, raw json.RawMessage) error { return json.Unmarshal(raw, &t.exists) }},
	}
	for _, how := range []quantity{someElement, everyElement, noElement} {
		all = append(all, member{string(how), func(t *test, raw json.RawMessage) error { return p.each(t, how, raw) }})
	}
	return all
}

func (p *conditionParser) one(raw []byte) (condition, error) {
	var c condition
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return c, err
	}
	if _, err := doc.Take("at", &c.at); err != nil {
		return c, err
	}
	if c.path, err = splitPointer(c.at); err != nil && (c.at != "" || p.depth == 0) {
		return c, err
	}
	asked := 0
	for _, m := range p.members() {
		var value json.RawMessage
		ok, err := doc.Take(m.name, &value)
		if err == nil && ok {
			asked++
			err = m.parse(&c.test, value)
		}
		if err != nil {
			return c, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	if asked != 1 {
		return c, errors.New("exactly one of is, oneOf, matches, atLeast, atMost, exists, any, all and none is needed")
	}
	if c.test.scalar == nil && c.test.each == nil && c.test.exists == nil {
		return c, errors.New("exists: true or false is needed")
	}
	return c, doc.Done()
}

func (t *test) is(raw json.RawMessage) error {
	want, err := jsonstream.New(strings.NewReader(string(raw))).Scalar(len(raw))
	if err != nil || want.Kind == jsonstream.Null {
		return errors.New("a text, a number, true or false is needed")
	}
	if !want.Whole {
		return errors.New("the number is too long")
	}
	t.scalar = func(v jsonstream.Scalar) bool { return v == want }
	return nil
}

func (t *test) oneOf(raw json.RawMessage) error {
	var choices []string
	if err := json.Unmarshal(raw, &choices); err != nil {
		return err
	}
	if len(choices) == 0 || len(choices) > maxChoices {
		return fmt.Errorf("%d texts, 1 to %d are possible", len(choices), maxChoices)
	}
	t.scalar = func(v jsonstream.Scalar) bool { return v.Kind == jsonstream.Text && slices.Contains(choices, v.Text) }
	return nil
}

func (t *test) pattern(raw json.RawMessage) error {
	var pattern string
	if err := json.Unmarshal(raw, &pattern); err != nil {
		return err
	}
	r, err := anchored(pattern)
	t.scalar = matching(r)
	return err
}

func matching(r *regexp.Regexp) func(jsonstream.Scalar) bool {
	return func(v jsonstream.Scalar) bool { return v.Kind == jsonstream.Text && r.MatchString(v.Text) }
}

// bound reads atLeast (1) and atMost (-1). A text is a version, which values that
// are texts or numbers are compared with; a number is a number, for values that
// are.
func (t *test) bound(raw json.RawMessage, sign int) error {
	if raw[0] != '"' {
		var limit float64
		if err := json.Unmarshal(raw, &limit); err != nil || string(raw) == "null" {
			return errors.New("a version or a number is needed")
		}
		t.scalar = func(v jsonstream.Scalar) bool {
			n, err := strconv.ParseFloat(v.Text, 64)
			return v.Kind == jsonstream.Number && err == nil && (sign > 0 && n >= limit || sign < 0 && n <= limit)
		}
		return nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return err
	}
	limit, err := parseVersion(text)
	t.scalar = func(v jsonstream.Scalar) bool {
		order, ok := limit.compare(v.Text)
		return ok && order*sign >= 0
	}
	return err
}

func (p *conditionParser) each(t *test, how quantity, raw json.RawMessage) error {
	var items []rawObject
	if err := json.Unmarshal(raw, &items); err != nil {
		return err
	}
	if len(items) == 0 {
		return errors.New("no condition")
	}
	if p.depth++; p.depth > maxNesting {
		return fmt.Errorf("nested deeper than %d", maxNesting)
	}
	defer func() { p.depth-- }()
	where, err := p.list(items)
	t.each = &each{how: how, where: where}
	return err
}

// splitPointer reads a JSON pointer that names more than the whole document.
func splitPointer(s string) ([]string, error) {
	if !strings.HasPrefix(s, "/") || len(s) > maxPointer {
		return nil, fmt.Errorf("at %.80q: want a JSON pointer of at most %d bytes, for example /builder/id", s, maxPointer)
	}
	parts := strings.Split(s[1:], "/")
	if len(parts) > maxSteps {
		return nil, fmt.Errorf("at %.80q: more than %d steps", s, maxSteps)
	}
	for i, p := range parts {
		parts[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(p)
	}
	return parts, nil
}
