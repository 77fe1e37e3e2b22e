package server

import (
	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

func policyRoutes() []Route {
	const one = api.PathPolicies + "/{kind}/{id}"
	return []Route{
		{Pattern: "GET " + api.PathPolicies, ID: "listPolicies", Summary: "List the policies",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(items[api.Policy]{})), admin: (*Server).listPolicies},
		{Pattern: "GET " + one, ID: "getPolicy", Summary: "Read a policy",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.Policy{})), admin: (*Server).getPolicy},
		{Pattern: "PUT " + one, ID: "putPolicy", Summary: "Create or replace a policy",
			Access: owner, On: OnAdmin, Request: jsonBody(api.Policy{}, "rego"), Answers: ok(jsonBody(api.Policy{})),
			Codes: codes(fault.Conflict), admin: (*Server).putPolicy},
		{Pattern: "DELETE " + one, ID: "deletePolicy", Summary: "Delete a policy",
			Access: owner, On: OnAdmin, Answers: noContent(), Codes: codes(fault.Conflict), admin: (*Server).deletePolicy},
	}
}
