package server

import "github.com/vouchsafe-cc/vouchsafe/kbs/api"

// leaseRoutes show what was given to whom. A lease is revoked by the routes of
// guestRevocationRoutes.
func leaseRoutes() []Route {
	return []Route{
		{Pattern: "GET " + api.PathLeases, ID: "listLeases", Summary: "List what was given to whom, and what became of it",
			Query: []Query{
				{"object", "only leases of this object, such as resource/REPO/TYPE/TAG", ""},
				{"guest", "only those of this guest, by its id or by that of the token that it had last", ""},
				{"claim", "only those of guests that showed a claim: PATH=VALUE", ""},
				{"state", "only those that are active, ended or revoked", ""},
				{"after", "go on after this id, the next of an earlier page", ""},
			},
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.LeasePage{})), admin: (*Server).listLeases},
		{Pattern: "GET " + api.PathLeases + "/{id}", ID: "getLease", Summary: "Read a lease",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.Lease{})), admin: (*Server).getLease},
	}
}
