package trust

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// A statement is what somebody attests of images (in-toto attestation
// framework, Statement v1).
type statement struct {
	predicateType string
	predicate     json.RawMessage // nil: none
	claims        []Claim         // one for each digest of a subject
}

// parseStatement reads an in-toto statement.
func parseStatement(raw []byte) (statement, error) {
	st, err := readStatement(raw)
	if err != nil {
		return statement{}, fmt.Errorf("in-toto statement: %w", err)
	}
	return st, nil
}

func readStatement(raw []byte) (statement, error) {
	var st statement
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return st, err
	}
	var kind string
	var subjects []rawObject
	for _, m := range []struct {
		name string
		v    any
	}{{"_type", &kind}, {"predicateType", &st.predicateType}, {"predicate", &st.predicate}, {"subject", &subjects}} {
		if _, err := doc.Take(m.name, m.v); err != nil {
			return st, err
		}
	}
	switch {
	case kind != "https://in-toto.io/Statement/v1" && kind != "https://in-toto.io/Statement/v0.1":
		return st, fmt.Errorf("a statement of type %.80q", kind)
	case st.predicateType == "":
		return st, errors.New("it has no type of predicate")
	case len(subjects) == 0 || len(subjects) > maxSubjects:
		return st, fmt.Errorf("%d subjects", len(subjects))
	}
	for _, s := range subjects {
		of, err := parseSubject(s)
		if err != nil {
			return st, fmt.Errorf("subject: %w", err)
		}
		st.claims = append(st.claims, of...)
	}
	return st, doc.Done()
}

// signed returns the claims of a statement that signs images and attests
// nothing else.
func (s statement) signed() ([]Claim, error) {
	if s.predicateType != PredicateSign {
		return nil, fmt.Errorf("the statement attests %.120q and signs nothing", s.predicateType)
	}
	return s.claims, nil
}

// parseSubject reads one subject (in-toto ResourceDescriptor): a claim for each
// of its digests that can name a manifest.
func parseSubject(raw []byte) ([]Claim, error) {
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return nil, err
	}
	var name string
	var digests map[string]string
	var annotations map[string]any
	for _, m := range []struct {
		name string
		v    any
	}{{"name", &name}, {"digest", &digests}, {"annotations", &annotations}} {
		if _, err := doc.Take(m.name, m.v); err != nil {
			return nil, err
		}
	}
	var claims []Claim
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		if hex, ok := digests[algorithm.String()]; ok {
			c := Claim{Digest: digest.NewDigestFromEncoded(algorithm, hex), Reference: name, Annotations: texts(annotations)}
			if err := registry.CheckDigest(c.Digest); err != nil {
				return nil, err
			}
			claims = append(claims, c)
		}
	}
	if len(claims) == 0 {
		return nil, errors.New("no digest that names a manifest")
	}
	return claims, doc.Done()
}
