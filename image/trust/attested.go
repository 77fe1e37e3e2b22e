package trust

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// typeAttested is ours: somebody must have attested something of the image,
// for example how it was built or what it consists of.
const typeAttested = "attested"

const maxConditions = 32 // of one requirement

// An attestation is what a requirement asks for.
type attestation struct {
	predicateType string
	where         []condition
}

// A condition is about one value of a predicate.
type condition struct {
	at      string // JSON pointer (RFC 6901)
	path    []string
	is      any // a text, a number or a flag
	matches *regexp.Regexp
	atLeast *version
}

// parseAttested takes the members of the requirement. A subject's name is not
// judged, so that there is no signedIdentity: an attestation is about a digest.
func (r *requirement) parseAttested(doc *strictjson.Object) error {
	r.attested = new(attestation)
	if _, err := doc.Take("predicateType", &r.attested.predicateType); err != nil {
		return err
	}
	switch r.attested.predicateType {
	case "":
		return errors.New("predicateType is missing")
	case PredicateSign:
		return fmt.Errorf("a signature is no attestation: %s asks for it", typeSigstore)
	}
	var items []rawObject
	if _, err := doc.Take("where", &items); err != nil {
		return err
	}
	if len(items) > maxConditions {
		return fmt.Errorf("%d conditions, at most %d are read", len(items), maxConditions)
	}
	for i, raw := range items {
		c, err := parseCondition(raw)
		if err != nil {
			return fmt.Errorf("condition %d: %w", i, err)
		}
		r.attested.where = append(r.attested.where, c)
	}
	return r.parseSigners(doc)
}

func parseCondition(raw []byte) (condition, error) {
	var c condition
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return c, err
	}
	var is json.RawMessage
	var pattern, least string
	asked := 0
	for _, m := range []struct {
		name string
		v    any
	}{{"at", &c.at}, {"is", &is}, {"matches", &pattern}, {"atLeast", &least}} {
		ok, err := doc.Take(m.name, m.v)
		if err != nil {
			return c, err
		}
		if ok && m.name != "at" {
			asked++
		}
	}
	if asked != 1 {
		return c, errors.New("exactly one of is, matches and atLeast is needed")
	}
	if c.path, err = splitPointer(c.at); err != nil {
		return c, err
	}
	switch {
	case is != nil:
		c.is, err = scalar(is)
	case least != "":
		c.atLeast, err = parseVersion(least)
	default:
		c.matches, err = anchored(pattern)
	}
	return c, errors.Join(err, doc.Done())
}

func scalar(raw []byte) (any, error) {
	v, err := decodeNumbers(raw)
	if err != nil {
		return nil, err
	}
	switch v.(type) {
	case string, json.Number, bool:
		return v, nil
	}
	return nil, errors.New("is: a text, a number, true or false is needed")
}

// decodeNumbers keeps the digits of numbers as they are written.
func decodeNumbers(raw []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	err := dec.Decode(&v)
	return v, err
}

// splitPointer reads a JSON pointer that names more than the whole document.
func splitPointer(s string) ([]string, error) {
	if !strings.HasPrefix(s, "/") {
		return nil, fmt.Errorf("at %.80q: want a JSON pointer, for example /builder/id", s)
	}
	parts := strings.Split(s[1:], "/")
	for i, p := range parts {
		parts[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(p)
	}
	return parts, nil
}

// find returns the value that a pointer names, or false.
func find(v any, path []string) (any, bool) {
	for _, name := range path {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[name]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(at) || strconv.Itoa(i) != name {
				return nil, false
			}
			v = at[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// holds says what is there, and whether that is what the condition asks.
func (c condition) holds(predicate any) (seen string, ok bool) {
	v, found := find(predicate, c.path)
	if !found {
		return "nothing", false
	}
	switch v.(type) {
	case string, json.Number, bool:
		seen = fmt.Sprint(v)
	default:
		return "no text, number or flag", false
	}
	switch {
	case c.matches != nil:
		text, isText := v.(string)
		return seen, isText && c.matches.MatchString(text)
	case c.atLeast != nil:
		return seen, c.atLeast.reachedBy(seen)
	}
	return seen, v == c.is
}

// attestation judges the attestations beside the image.
func (e *evaluation) attestation(ctx context.Context, i int, r requirement) ([]Accepted, error) {
	v, err := e.voucher(ctx, r)
	if err != nil {
		return nil, err
	}
	t := tally{index: i, rule: r, subject: e.subject, wanted: v.wanted()}
	found, err := e.shelf.attestations(ctx, e.evidence.Signatures, e.subject)
	if err != nil {
		return nil, fetchFault(err)
	}
	for _, sig := range found.sigs {
		if sig.Form != FormDSSE {
			continue
		}
		who, reason := v.judge(ctx, sig)
		t.attest(who, reason, sig)
	}
	t.seen = append(t.seen, found.broken...)
	return e.conclude(&t)
}

// attest judges what an attestation says, unless a reason stands against its
// signer.
func (t *tally) attest(who signer, reason string, sig Signature) {
	st, err := parseStatement(sig.Payload)
	switch {
	case err != nil:
		t.seen = append(t.seen, err.Error())
		return
	case st.predicateType != t.rule.attested.predicateType:
		return // other attestations are not worth a word
	case reason != "":
		t.seen = append(t.seen, reason)
		return
	}
	seen, reason := t.rule.attested.judge(st)
	if reason != "" {
		t.seen = append(t.seen, reason)
		return
	}
	for _, c := range st.claims {
		if c.Digest == t.subject.Root || c.Digest == t.subject.Manifest {
			c.Reference, c.Annotations = "", nil // were not judged
			t.accept(who, sig, c, seen)
			return
		}
	}
	t.seen = append(t.seen, "an attestation by the wanted signer of another image, "+st.claims[0].Digest.String())
}

// judge says what stood where there are conditions, or which one does not hold.
func (a attestation) judge(st statement) (seen map[string]string, reason string) {
	if len(a.where) == 0 {
		return nil, ""
	}
	predicate, err := decodeNumbers(st.predicate)
	if err != nil {
		return nil, "an attestation without a predicate"
	}
	seen = map[string]string{}
	for _, c := range a.where {
		text, ok := c.holds(predicate)
		if !ok {
			return nil, fmt.Sprintf("an attestation by the wanted signer with %.200q at %s", text, c.at)
		}
		seen[c.at] = text
	}
	return seen, ""
}
