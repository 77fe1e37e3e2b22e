package ctl

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

// kind is one row of the table of kinds: what the generic verbs need to know
// about it. A verb that the API does not offer for a kind is nil.
type kind struct {
	name    string
	aliases []string
	header  []string
	list    func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error)
	get     func(ctx context.Context, c *cli, a *admin.Client, name string) (object, error)
	delete  func(ctx context.Context, a *admin.Client, name string, want int64) error // of what is at version want
	confirm bool                                                                      // deleting one wants its name twice
	schema  string                                                                    // what `explain KIND` prints
}

// listOptions narrow a list.
type listOptions struct {
	limit  int    // 0 means no limit, or the kind's own
	prefix string // of the name
	all    bool   // also the groups of tickets that are silenced, and leases that have ended
	// For resources only.
	owner    string
	labels   []string
	expiring time.Duration
	// For leases only.
	guest, resource, claim string
}

func kinds() []kind {
	return []kind{resourceKind(), policyKind(), refValueKind(), refSetKind(), signerKind(), tokenKeyKind(), ticketKind(), ticketGroupKind(), eventKind(), tenantKind(), approvalKind(), revocationKind(), guestRevocationKind(), leaseKind(), masterKeyKind()}
}

func kindNames() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

// kindTable lists the kinds for help, within 80 columns.
func kindTable() string {
	var b strings.Builder
	line := "Kinds:"
	for _, name := range kindNames() {
		if len(line)+1+len(name) > 80 {
			b.WriteString(line + "\n")
			line = "      "
		}
		line += " " + name
	}
	b.WriteString(line)
	return b.String()
}

func findKind(s string) (kind, error) {
	s = strings.ToLower(s)
	for _, k := range kinds() {
		if s == k.name || slices.Contains(k.aliases, s) {
			return k, nil
		}
	}
	wrong := usagef("unknown kind %q", s)
	for _, name := range kindNames() { // a letter more, less or swapped
		if near := strings.TrimSuffix(s, "s"); len(s) > 3 && (strings.HasPrefix(name, near[:3]) || strings.HasSuffix(name, near[len(near)-3:])) {
			return kind{}, wrong.hint("did you mean %s? All kinds: %s", name, strings.Join(kindNames(), ", "))
		}
	}
	return kind{}, wrong.hint("kinds are %s", strings.Join(kindNames(), ", "))
}

// target reads the arguments KIND, KIND NAME... or KIND/NAME....
func target(args []string) (kind, []string, error) {
	first, name, slash := strings.Cut(args[0], "/")
	k, err := findKind(first)
	if err != nil || !slash {
		return k, args[1:], err
	}
	names := []string{name}
	for _, a := range args[1:] {
		first, name, _ := strings.Cut(a, "/")
		other, err := findKind(first)
		if err != nil || other.name != k.name || name == "" {
			return k, nil, usagef("after %s, want more of the form %s/NAME, not %q", args[0], k.name, a)
		}
		names = append(names, name)
	}
	if name == "" {
		return k, nil, usagef("%q lacks a name", args[0])
	}
	return k, names, nil
}

// objects fetches what was named, or the list if nothing was.
func (c *cli) objects(ctx context.Context, k kind, names []string, o listOptions) ([]object, error) {
	a, err := c.client()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	if len(names) == 0 {
		all, err := k.list(ctx, c, a, o)
		if err != nil {
			return nil, missing(doing(err, "list %s", k.name), "is that the broker's address for administrators? It has another port than that for guests (8081, not 8080)")
		}
		return all, nil
	}
	var found []object
	for _, name := range names {
		obj, err := k.get(ctx, c, a, name)
		if err != nil {
			return nil, missing(doing(err, "get %s/%s", k.name, name), "kbsctl list %s shows what is there", k.name)
		}
		found = append(found, obj)
	}
	return found, nil
}
