package server

import "github.com/vouchsafe-cc/vouchsafe/kbs/api"

// adminRoutes are about administrators themselves. A revocation waits for
// nobody's approval: it only takes away.
func adminRoutes() []Route {
	return []Route{
		{Pattern: "GET " + api.PathWhoAmI, ID: "whoAmI", Summary: "Read what the broker makes of the caller's credential",
			Access: Known, On: OnAdmin, Answers: ok(jsonBody(api.WhoAmI{})), admin: (*Server).whoAmI},
		{Pattern: "GET " + api.PathRevocations, ID: "listRevocations", Summary: "List the admin tokens that were revoked", System: true,
			Access: auditor, On: OnAdmin, Answers: ok(jsonBody(items[api.Revocation]{})), admin: (*Server).listRevocations},
		{Pattern: "POST " + api.PathRevocations, ID: "revoke", Summary: "Revoke an admin token, or all of a subject; one's own, or as an owner of the broker any",
			Access: Known, On: OnAdmin, Request: jsonBody(api.RevocationRequest{}), Answers: ok(jsonBody(api.Revocation{})), admin: (*Server).revoke},
	}
}
