package server

import (
	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// tenantRoutes are for the owners of the broker.
func tenantRoutes() []Route {
	const one = api.PathTenants + "/{tenant}"
	return []Route{
		{Pattern: "GET " + api.PathTenants, ID: "listTenants", Summary: "List the tenants", System: true,
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(items[api.Tenant]{})), admin: (*Server).listTenants},
		{Pattern: "GET " + one, ID: "getTenant", Summary: "Read a tenant, with what it uses", System: true,
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.Tenant{})), admin: (*Server).getTenant},
		{Pattern: "PUT " + one, ID: "putTenant", Summary: "Create, change, suspend or resume a tenant", System: true, Change: "tenant.put",
			Access: owner, On: OnAdmin, Request: jsonBody(api.Tenant{}), Answers: ok(jsonBody(api.Tenant{})),
			Codes: codes(fault.Conflict), admin: (*Server).putTenant, version: (*Server).versionOfTenant},
		{Pattern: "DELETE " + one, ID: "deleteTenant", Summary: "Destroy a suspended tenant with all its records", System: true, Change: "tenant.delete",
			Query:  []Query{{"confirm", "the name of the tenant once more", ""}},
			Access: owner, On: OnAdmin, Answers: noContent(), Codes: codes(fault.Conflict), admin: (*Server).deleteTenant, version: (*Server).versionOfTenant},
	}
}
