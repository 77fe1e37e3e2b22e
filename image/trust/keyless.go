package trust

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

const (
	maxIdentities = 64  // of one requirement
	maxPattern    = 512 // bytes of a regular expression
)

// rootSource says where a requirement's roots of trust are: those that
// containers-policy.json(5) has members for, or a whole trusted_root.json.
type rootSource struct {
	trusted *keySource  // trustedRootPath, trustedRootData: ours
	rekor   []keySource // rekorPublicKeyPath(s), rekorPublicKeyData(s)
	fulcio  *keySource  // fulcio.caPath, fulcio.caData
}

// An identity is one that a requirement asks for. Each half is a text or a
// pattern that matches the whole.
type identity struct {
	issuer, subject                 string
	issuerExpression, subjectRegexp *regexp.Regexp
}

func (id identity) String() string {
	half := func(text string, r *regexp.Regexp) string {
		if r != nil {
			return r.String()
		}
		return text
	}
	return nameOf(sigstore.Identity{Issuer: half(id.issuer, id.issuerExpression), Subject: half(id.subject, id.subjectRegexp)})
}

func (id identity) matches(seen sigstore.Identity) bool {
	same := func(text string, r *regexp.Regexp, seen string) bool {
		if r != nil {
			return r.MatchString(seen)
		}
		return text != "" && text == seen
	}
	return same(id.issuer, id.issuerExpression, seen.Issuer) && same(id.subject, id.subjectRegexp, seen.Subject)
}

// anchored compiles a pattern that must match all of a text. It is compiled by
// itself first: one like "a)|(b" would break out of the brackets around it.
func anchored(pattern string) (*regexp.Regexp, error) {
	if pattern == "" || len(pattern) > maxPattern {
		return nil, fmt.Errorf("a pattern of %d bytes", len(pattern))
	}
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, err
	}
	return regexp.Compile(`^(?:` + pattern + `)$`)
}

// parseRoots takes the members that say whose logs and certificates count, and
// the identities that may sign. It reports whether keys must be named besides.
func (r *requirement) parseRoots(doc *strictjson.Object) (keyed bool, err error) {
	var src rootSource
	if src.trusted, err = takeSource(doc, "trustedRootPath", "trustedRootData"); err != nil {
		return false, err
	}
	var rekor requirement
	if err := rekor.takeKeys(doc, keyDataPEM, "rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"); err != nil {
		return false, err
	}
	src.rekor = rekor.keys
	if src.fulcio, err = r.parseFulcio(doc); err != nil {
		return false, err
	}
	if err := r.parseIdentities(doc); err != nil {
		return false, err
	}
	switch {
	case src.trusted != nil && (src.rekor != nil || src.fulcio != nil):
		return false, errors.New("a trusted root names its own logs and authorities: neither fulcio nor rekorPublicKey can stand beside it")
	case src.fulcio != nil && src.rekor == nil:
		return false, errors.New("fulcio needs a rekorPublicKey: only a log says when a certificate was used")
	case len(r.identities) > 0 && src.fulcio == nil && src.trusted == nil:
		return false, errors.New("identities need a trusted root")
	}
	if src.trusted != nil || src.rekor != nil {
		r.roots = &src
	}
	return len(r.identities) == 0, nil
}

// parseFulcio takes the member of containers-policy.json(5), which names one
// identity.
func (r *requirement) parseFulcio(doc *strictjson.Object) (*keySource, error) {
	fulcio, err := doc.Object("fulcio")
	if err != nil || fulcio == nil {
		return nil, err
	}
	ca, err := takeSource(fulcio, "caPath", "caData")
	if err != nil {
		return nil, err
	}
	var id identity
	for _, m := range []struct {
		name string
		v    *string
	}{{"oidcIssuer", &id.issuer}, {"subjectEmail", &id.subject}} {
		if _, err := fulcio.Take(m.name, m.v); err != nil {
			return nil, err
		}
		if *m.v == "" {
			return nil, fmt.Errorf("fulcio needs %s", m.name)
		}
	}
	if ca == nil {
		return nil, errors.New("fulcio needs caPath or caData")
	}
	r.identities = []identity{id}
	return ca, fulcio.Done()
}

func (r *requirement) parseIdentities(doc *strictjson.Object) error {
	var items []rawObject
	ok, err := doc.Take("identities", &items)
	if err != nil || !ok {
		return err
	}
	if len(items) == 0 || len(items) > maxIdentities || len(r.identities) > 0 {
		return fmt.Errorf("%d identities, 1 to %d and no fulcio are possible", len(items), maxIdentities)
	}
	for _, raw := range items {
		id, err := parseWantedIdentity(raw)
		if err != nil {
			return fmt.Errorf("identity: %w", err)
		}
		r.identities = append(r.identities, id)
	}
	return nil
}

func parseWantedIdentity(raw []byte) (identity, error) {
	var id identity
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return id, err
	}
	if id.issuer, id.issuerExpression, err = takeHalf(doc, "issuer"); err != nil {
		return id, err
	}
	if id.subject, id.subjectRegexp, err = takeHalf(doc, "subject"); err != nil {
		return id, err
	}
	return id, doc.Done()
}

// takeHalf takes NAME, or NAMERegExp in its place.
func takeHalf(doc *strictjson.Object, name string) (text string, r *regexp.Regexp, err error) {
	var pattern string
	plain, err := doc.Take(name, &text)
	if err != nil {
		return "", nil, err
	}
	expression, err := doc.Take(name+"RegExp", &pattern)
	if err != nil {
		return "", nil, err
	}
	if plain == expression || plain && text == "" {
		return "", nil, fmt.Errorf("exactly one of %s and %sRegExp is needed", name, name)
	}
	if expression {
		if r, err = anchored(pattern); err != nil {
			return "", nil, fmt.Errorf("%sRegExp: %w", name, err)
		}
	}
	return text, r, nil
}

// takeSource takes a path or, in base64 or as it is, what would lie there; nil
// if there is neither.
func takeSource(doc *strictjson.Object, path, data string) (*keySource, error) {
	var src keySource
	hasPath, err := doc.Take(path, &src.path)
	if err != nil {
		return nil, err
	}
	var text string
	hasData, err := doc.Take(data, &text)
	if err != nil {
		return nil, err
	}
	switch {
	case !hasPath && !hasData:
		return nil, nil
	case hasPath && hasData || hasPath && src.path == "" || hasData && text == "":
		return nil, fmt.Errorf("exactly one of %s and %s is needed", path, data)
	case hasData:
		src.data, err = keyDataPEM(text)
	}
	return &src, err
}

// root reads the roots of trust of a requirement; nil if it has none.
func (e *evaluation) root(ctx context.Context, r requirement) (*sigstore.Root, error) {
	if r.roots == nil {
		return nil, nil
	}
	read := func(src *keySource) ([]byte, error) {
		if src == nil {
			return nil, nil
		}
		return e.key(ctx, *src)
	}
	if r.roots.trusted != nil {
		raw, err := read(r.roots.trusted)
		if err != nil {
			return nil, err
		}
		return e.usableRoot(r, func() (*sigstore.Root, error) { return sigstore.ParseRoot(raw) })
	}
	var rekor [][]byte
	for i := range r.roots.rekor {
		raw, err := read(&r.roots.rekor[i])
		if err != nil {
			return nil, err
		}
		rekor = append(rekor, raw)
	}
	fulcio, err := read(r.roots.fulcio)
	if err != nil {
		return nil, err
	}
	return e.usableRoot(r, func() (*sigstore.Root, error) { return sigstore.NewRoot(rekor, fulcio) })
}

func (e *evaluation) usableRoot(r requirement, parse func() (*sigstore.Root, error)) (*sigstore.Root, error) {
	root, err := parse()
	if err == nil && len(r.identities) > 0 && !root.IssuesCertificates() {
		err = errors.New("it names no authority for certificates")
	}
	if err != nil {
		return nil, e.reject("whom to trust cannot be read", err)
	}
	return root, nil
}

// voucher reads the keys and roots of a requirement.
func (e *evaluation) voucher(ctx context.Context, r requirement) (voucher, error) {
	keys, err := e.keys(ctx, r)
	if err != nil {
		return voucher{}, err
	}
	root, err := e.root(ctx, r)
	return voucher{keys: keys, root: root, identities: slices.Clone(r.identities)}, err
}
