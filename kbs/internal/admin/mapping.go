package admin

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Mapping gives a role to those whose token has a claim of a value.
type Mapping struct {
	Grant

	Issuer string // only tokens of this provider; "" means any
	// Claim is the name of a claim, or a JSON pointer (RFC 6901) into them, such
	// as /realm_access/roles.
	Claim string
	// Value must be the claim, or one of its elements.
	Value string
}

// Validate returns what is wrong with a mapping.
func (m Mapping) Validate() error {
	switch {
	case m.Claim == "" || m.Value == "":
		return errors.New("claim and value must be given")
	case len(m.Tenants) == 0:
		return fmt.Errorf("tenants must be given; [%q] is all of them", AnyTenant)
	}
	_, err := ParseRole(string(m.Role))
	return err
}

func (m Mapping) fits(issuer string, claims map[string]any) bool {
	if m.Issuer != "" && m.Issuer != issuer {
		return false
	}
	switch v := lookup(claims, m.Claim).(type) {
	case string:
		return v == m.Value
	case []any:
		return slices.Contains(v, any(m.Value))
	default:
		return false
	}
}

// lookup returns the claim of this name, or at this pointer; nil if there is none.
func lookup(claims map[string]any, name string) any {
	if !strings.HasPrefix(name, "/") {
		return claims[name]
	}
	var at any = claims
	for _, part := range strings.Split(name[1:], "/") {
		part = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
		switch v := at.(type) {
		case map[string]any:
			at = v[part]
		case []any:
			n, err := strconv.Atoi(part)
			if err != nil || n < 0 || n >= len(v) {
				return nil
			}
			at = v[n]
		default:
			return nil
		}
	}
	return at
}

// grants are those that the claims of a provider's token are mapped to.
func (a *Authenticator) grants(issuer string, claims map[string]any) []Grant {
	var out []Grant
	for _, m := range a.c.Mappings {
		if m.fits(issuer, claims) {
			out = append(out, m.Grant)
		}
	}
	return out
}
