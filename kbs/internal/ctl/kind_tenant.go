package ctl

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func tenantKind() kind {
	return kind{
		name: "tenant", aliases: []string{"tenants"},
		header: []string{"NAME", "STATE", "VERSION", "HOSTS", "APPROVALS", "AUTHOR", "AGE"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			all, err := a.Tenants(ctx)
			return listed(all, o, c.tenantObject), err
		},
		get: func(ctx context.Context, c *cli, a *admin.Client, name string) (object, error) {
			t, err := a.Tenant(ctx, name)
			return c.tenantObject(t), err
		},
		delete: func(ctx context.Context, a *admin.Client, name string, want int64) error {
			return a.DeleteTenant(ctx, name, want)
		},
		confirm: true,
		schema:  tenantSchema,
	}
}

const tenantSchema = `kind tenant
  One of those who share a broker: it has its own policies, reference values,
  resources, keys, tickets and administrators. Guests and administrators reach it
  under /t/NAME/ or by one of its host names.

  name       1 to 40 of a-z, 0-9 and -
  state      active, suspended (as if it did not exist), or deleting
  hosts      host names whose requests are for it
  quotas     resources, bytes, policies, refvalues, sessions, releases (the last
             two a minute); without one the broker's default holds
  approvals  the changes that need a second person: policy.put, policy.*, or *

  kbsctl create tenant, set tenant, suspend, resume; delete destroys a suspended
  one with all that it has.`

func (c *cli) tenantObject(t api.Tenant) object {
	return object{
		kind: "tenant", name: t.Name, version: t.Version, data: t,
		row: []string{t.Name, t.State, strconv.FormatInt(t.Version, 10), strings.Join(t.Hosts, ","), strings.Join(t.Approvals, ","), t.Author, age(t.Time, c.now())},
		describe: func(s *sheet) {
			s.line("tenant", t.Name)
			s.line("state", t.State)
			s.line("version", strconv.FormatInt(t.Version, 10))
			s.line("hosts", strings.Join(t.Hosts, "\n"))
			s.line("approvals", strings.Join(t.Approvals, "\n"))
			s.line("author", t.Author)
			s.line("created", stamp(t.Created, c.now()))
			s.line("changed", stamp(t.Time, c.now()))
			for _, q := range tenantQuotas(&t.Quotas) {
				s.line("quota", quotaLine(q, t.Usage))
			}
		},
	}
}

// quota is one limit of a tenant, and what of it is used, if that is counted.
type quota struct {
	name  string
	limit *int64
	used  func(*api.TenantUsage) int64
}

func tenantQuotas(q *api.TenantQuotas) []quota {
	return []quota{
		{"resources", &q.Resources, func(u *api.TenantUsage) int64 { return u.Resources }},
		{"bytes", &q.Bytes, func(u *api.TenantUsage) int64 { return u.Bytes }},
		{"policies", &q.Policies, func(u *api.TenantUsage) int64 { return u.Policies }},
		{"refvalues", &q.RefValues, func(u *api.TenantUsage) int64 { return u.RefValues }},
		{"sessions", &q.Sessions, nil},
		{"releases", &q.Releases, nil},
	}
}

func quotaLine(q quota, used *api.TenantUsage) string {
	limit := strconv.FormatInt(*q.limit, 10)
	switch *q.limit {
	case 0:
		limit = "default"
	case -1:
		limit = "none"
	}
	if q.used == nil {
		return fmt.Sprintf("%-10s limit %s a minute", q.name, limit)
	}
	if used == nil {
		return fmt.Sprintf("%-10s limit %s", q.name, limit)
	}
	return fmt.Sprintf("%-10s %d used, limit %s", q.name, q.used(used), limit)
}
