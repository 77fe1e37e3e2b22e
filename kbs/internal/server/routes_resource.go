package server

import (
	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// resourceRoutes has no way to read a value: only an attested guest has.
func resourceRoutes() []Route {
	const one = api.PathResources + "/{repo}/{type}/{tag}"
	return []Route{
		{Pattern: "GET " + api.PathResources, ID: "listResources", Summary: "List the resources, without their values", Query: prefixQuery("paths"),
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(items[api.ResourceInfo]{})), admin: (*Server).listResources},
		{Pattern: "PUT " + one, ID: "putResource", Change: "resource.put", Summary: "Create or replace a resource",
			Access: operator, On: OnAdmin, Request: rawBody("application/octet-stream"), Answers: ok(jsonBody(api.ResourceInfo{})),
			Codes: codes(fault.Conflict), admin: (*Server).putResource},
		{Pattern: "DELETE " + one, ID: "deleteResource", Change: "resource.delete", Summary: "Delete a resource",
			Access: operator, On: OnAdmin, Answers: noContent(), Codes: codes(fault.Conflict), admin: (*Server).deleteResource},
	}
}
