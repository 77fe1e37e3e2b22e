package trust

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/image/trust/outline"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// The requirement types that are built.
const (
	typeReject   = outline.Reject
	typeAccept   = outline.AcceptAnything
	typeSigstore = outline.SigstoreSigned
)

const maxKeys = 64 // of one requirement

// A requirement is one element of a scope's list.
type requirement struct {
	kind string

	// The rest is for requirements of signatures. The members threshold and
	// annotations are ours: other readers of policy.json refuse them.
	keys        []keySource
	threshold   int // how many of the keys must have signed
	annotations map[string]string
	identity    identityRule
	roots       *rootSource         // whose logs and certificates count; nil: only the keys do
	identities  []identity          // that may sign, in the place of keys
	atLeast     map[string]*version // annotations that name a version which may not be lower
	attested    *attestation
	notation    *notation
}

// A keySource is a key, or the path where Evidence.Keys finds it.
type keySource struct {
	path string
	data []byte
}

func parseRequirement(raw []byte) (requirement, error) {
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return requirement{}, err
	}
	var r requirement
	if _, err := doc.Take("type", &r.kind); err != nil {
		return requirement{}, err
	}
	switch r.kind {
	case typeReject, typeAccept, typeEncrypted:
	case typeSigstore:
		err = r.parseSigstore(doc)
	case typeNotation:
		err = r.parseNotation(doc)
	case typeAttested:
		err = r.parseAttested(doc)
	case typeSignedBy:
		err = r.parseSignedBy(doc)
	default:
		err = fmt.Errorf("type %.40q is not supported", r.kind)
	}
	if err == nil {
		err = doc.Done()
	}
	if err == nil && !outline.IsRequirement(raw) { // the broker would not know it for a policy
		err = errors.New("a member is not in the outline of policies")
	}
	if err != nil {
		return requirement{}, err
	}
	return r, nil
}

func (r *requirement) parseSigstore(doc *strictjson.Object) error {
	if err := r.parseSigners(doc); err != nil {
		return err
	}
	// cosign signs repositories, not tags; see the package comment.
	return r.parseConditions(doc, matchRepository)
}

// parseSigners takes who may sign: keys or identities, and how many of them
// must have.
func (r *requirement) parseSigners(doc *strictjson.Object) error {
	keyed, err := r.parseRoots(doc)
	if err != nil {
		return err
	}
	if keyed {
		err = r.parseKeys(doc, keyDataPEM, "keyPath", "keyPaths", "keyData", "keyDatas")
	}
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, k := range r.keys {
		if k.path != "" {
			continue
		}
		key, err := parseKey(k.data)
		if err != nil {
			return err
		}
		if seen[key.fingerprint] {
			return fmt.Errorf("the key %s is named twice", key.fingerprint)
		}
		seen[key.fingerprint] = true
	}
	return r.parseThreshold(doc)
}

// parseKeys takes the keys, which stand under exactly one of the members.
func (r *requirement) parseKeys(doc *strictjson.Object, decode func(string) ([]byte, error), members ...string) error {
	if err := r.takeKeys(doc, decode, members...); err != nil {
		return err
	}
	if len(r.keys) == 0 {
		return fmt.Errorf("exactly one of %s is needed", or(members))
	}
	return nil
}

// takeKeys takes the keys under at most one of the members.
func (r *requirement) takeKeys(doc *strictjson.Object, decode func(string) ([]byte, error), members ...string) error {
	var found []string
	for _, name := range members {
		var list []string
		var ok bool
		var err error
		if plural := strings.HasSuffix(name, "s"); plural {
			ok, err = doc.Take(name, &list)
		} else {
			list = make([]string, 1)
			ok, err = doc.Take(name, &list[0])
		}
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		found = append(found, name)
		for _, text := range list {
			if err := r.addKey(name, text, decode); err != nil {
				return err
			}
		}
	}
	if len(found) > 1 || len(found) == 1 && len(r.keys) == 0 {
		return fmt.Errorf("exactly one of %s is needed", or(members))
	}
	if len(r.keys) > maxKeys {
		return fmt.Errorf("%d keys, at most %d are read", len(r.keys), maxKeys)
	}
	return nil
}

func (r *requirement) addKey(member, text string, decode func(string) ([]byte, error)) error {
	if text == "" {
		return fmt.Errorf("an empty %s: exactly one key is needed in each", member)
	}
	if strings.HasSuffix(strings.TrimSuffix(member, "s"), "Path") {
		if slices.ContainsFunc(r.keys, func(k keySource) bool { return k.path == text }) {
			return fmt.Errorf("the key %.200q is named twice", text)
		}
		r.keys = append(r.keys, keySource{path: text})
		return nil
	}
	data, err := decode(text)
	if err != nil {
		return err
	}
	r.keys = append(r.keys, keySource{data: data})
	return nil
}

// parseThreshold takes how many keys must have signed: one, as elsewhere, if
// nothing is said.
func (r *requirement) parseThreshold(doc *strictjson.Object) error {
	r.threshold = 1
	if _, err := doc.Take("threshold", &r.threshold); err != nil {
		return err
	}
	most := len(r.keys)
	if len(r.identities) > 0 {
		most = maxKeys // a pattern stands for any number of identities
	}
	if r.threshold < 1 || r.threshold > most {
		return fmt.Errorf("threshold %d with %d keys", r.threshold, len(r.keys))
	}
	return nil
}

// parseAtLeast takes the floors of versions, which keep out older images that
// the same signer released once.
func (r *requirement) parseAtLeast(doc *strictjson.Object) error {
	var floors map[string]string
	ok, err := doc.Take("atLeast", &floors)
	if err != nil || !ok {
		return err
	}
	if len(floors) == 0 {
		return errors.New("atLeast is empty")
	}
	r.atLeast = map[string]*version{}
	for _, name := range slices.Sorted(maps.Keys(floors)) {
		if r.atLeast[name], err = parseVersion(floors[name]); err != nil {
			return fmt.Errorf("atLeast %.80q: %w", name, err)
		}
	}
	return nil
}

// parseConditions takes what must stand in the signature.
func (r *requirement) parseConditions(doc *strictjson.Object, identity string) error {
	if err := r.parseAnnotations(doc); err != nil {
		return err
	}
	rule, err := doc.Object("signedIdentity")
	if err != nil {
		return err
	}
	r.identity, err = parseIdentity(rule, identity)
	return err
}

// parseAnnotations takes what a signature must carry besides.
func (r *requirement) parseAnnotations(doc *strictjson.Object) error {
	ok, err := doc.Take("annotations", &r.annotations)
	if err != nil {
		return err
	}
	if ok && len(r.annotations) == 0 {
		return errors.New("annotations are empty")
	}
	for _, k := range slices.Sorted(maps.Keys(r.annotations)) {
		if k == "" || r.annotations[k] == "" {
			return fmt.Errorf("annotation %.80q: name and value are needed", k)
		}
	}
	return r.parseAtLeast(doc)
}

// or lists alternatives as a sentence does.
func or(names []string) string {
	s := names[0]
	for i, n := range names[1:] {
		if i == len(names)-2 {
			s += " and " + n
		} else {
			s += ", " + n
		}
	}
	return s
}
