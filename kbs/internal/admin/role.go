package admin

import (
	"fmt"
	"slices"
)

// Role is what an administrator may do. Nobody reads a secret: there is no role
// for that.
type Role string

// The roles. An approver is not an owner and an owner is not an approver: who
// may be both must be given both.
const (
	Viewer   Role = "viewer"   // reads objects and tickets
	Operator Role = "operator" // also changes resources and reference values
	Approver Role = "approver" // reads like a viewer, and approves what others ask for
	Auditor  Role = "auditor"  // reads like a viewer, and the audit log; changes nothing
	Owner    Role = "owner"    // all but approving
)

var roles = []Role{Viewer, Operator, Approver, Auditor, Owner}

// Roles lists all roles.
func Roles() []Role { return slices.Clone(roles) }

// ParseRole reads a role name.
func ParseRole(s string) (Role, error) {
	if !slices.Contains(roles, Role(s)) {
		return "", fmt.Errorf("role must be one of %v", roles)
	}
	return Role(s), nil
}

// Includes reports whether r may do what the role need is for.
func (r Role) Includes(need Role) bool {
	switch need {
	case Viewer:
		return slices.Contains(roles, r)
	case Operator, Auditor:
		return r == need || r == Owner
	case Approver, Owner:
		return r == need
	default:
		return false
	}
}
