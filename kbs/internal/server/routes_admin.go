package server

import (
	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

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

// guestRevocationRoutes cut guests off. To revoke waits for nobody either; to
// take it back may.
func guestRevocationRoutes() []Route {
	return []Route{
		{Pattern: "GET " + api.PathGuestRevocations, ID: "listGuestRevocations", Summary: "List which guests are cut off",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(items[api.GuestRevocation]{})), admin: (*Server).listGuestRevocations},
		{Pattern: "POST " + api.PathGuestRevocations, ID: "revokeGuest", Summary: "Cut guests off: one token, all evidence that shows a claim, or one lease; at once here, within a second on other replicas",
			Access: operator, On: OnAdmin, Request: jsonBody(api.GuestRevocation{}, "reason"), Answers: ok(jsonBody(api.GuestRevocation{})), admin: (*Server).revokeGuest},
		{Pattern: "DELETE " + api.PathGuestRevocations + "/{id}", ID: "reinstateGuest", Change: "guest.reinstate", Summary: "Take such a revocation back",
			Access: operator, On: OnAdmin, Answers: noContent(), Codes: codes(fault.Conflict), admin: (*Server).reinstateGuest},
	}
}
