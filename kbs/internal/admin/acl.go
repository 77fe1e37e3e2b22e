package admin

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// ACL is one entry of the field's access list (kbs-protocol 6), with the
// methods and tenants that it may be narrowed to.
type ACL struct {
	Role      string         // the token's role claim
	Endpoints *regexp.Regexp // from CompileEndpoints
	Methods   []string       // empty means all
	Tenants   []string       // empty means the default one alone
}

// maxPattern bounds a pattern, in bytes.
const maxPattern = 4 << 10

// CompileEndpoints reads a pattern over request URIs. Like the field, it wants
// ^/kbs in front and $ at the end; unlike the field, in every alternative, so
// that ^/kbs/v0/a|.*$ is not a way around.
func CompileEndpoints(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > maxPattern || !strings.HasPrefix(pattern, "^/kbs") || !strings.HasSuffix(pattern, "$") {
		return nil, fmt.Errorf("a pattern of endpoints begins with ^/kbs, ends with $ and has at most %d bytes", maxPattern)
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	if !anchored(tree, syntax.OpBeginText, 0) || !anchored(tree, syntax.OpEndText, -1) {
		return nil, errors.New("every alternative of a pattern of endpoints must begin with ^ and end with $")
	}
	return regexp.Compile(pattern)
}

// anchored reports whether every match of the expression has the anchor at one
// end: the first part (0) or the last (-1).
func anchored(re *syntax.Regexp, anchor syntax.Op, end int) bool {
	switch re.Op {
	case anchor:
		return true
	case syntax.OpCapture:
		return anchored(re.Sub[0], anchor, end)
	case syntax.OpConcat:
		return anchored(re.Sub[(end+len(re.Sub))%len(re.Sub)], anchor, end)
	case syntax.OpAlternate:
		return !slices.ContainsFunc(re.Sub, func(s *syntax.Regexp) bool { return !anchored(s, anchor, end) })
	default:
		return false
	}
}

// Call is what an administrator wants to do.
type Call struct {
	Tenant string
	Need   Role // that the route wants
	Method string
	// URI is the raw request target within the tenant: path and query as sent.
	URI string
}

// concerns reports whether an entry is about a tenant and an identity.
func (e ACL) concerns(id Identity, tenant, home string) bool {
	if id.Claim == "" || e.Role != id.Claim {
		return false
	}
	if len(e.Tenants) == 0 {
		return tenant == home
	}
	return Grant{Tenants: e.Tenants}.in(tenant)
}

// permits reports whether an entry allows a call. The field matches the query
// too; here the path alone must match as well, so that a query cannot stand in
// for a path. Whatever its pattern, no entry reaches beyond the field's API.
func (e ACL) permits(id Identity, c Call, home string) bool {
	path, _, _ := strings.Cut(c.URI, "?")
	return strings.HasPrefix(path, "/kbs/") && e.concerns(id, c.Tenant, home) &&
		(len(e.Methods) == 0 || slices.Contains(e.Methods, c.Method)) &&
		e.Endpoints.MatchString(c.URI) && e.Endpoints.MatchString(path)
}
