package server

import (
	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// approvalRoutes are about changes that need a second person. Deciding about
// one is never such a change itself.
func approvalRoutes() []Route {
	const one = api.PathApprovals + "/{approval}"
	decision, answer := jsonBody(api.ApprovalDecision{}), ok(jsonBody(api.Approval{}))
	return []Route{
		{Pattern: "GET " + api.PathApprovals, ID: "listApprovals", Summary: "List the changes that wait for a second person, and those that did",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(items[api.Approval]{})), admin: (*Server).listApprovals},
		{Pattern: "GET " + one, ID: "getApproval", Summary: "Read a change that waits, with what it would write unless that is a secret",
			Access: viewer, On: OnAdmin, Answers: answer, admin: (*Server).getApproval},
		{Pattern: "POST " + one + "/approve", ID: "approve", Summary: "Approve a change that another one asked for, which makes it",
			Access: approver, On: OnAdmin, Request: decision, Answers: answer, Codes: codes(fault.Conflict, fault.TooLarge), admin: (*Server).approve},
		{Pattern: "POST " + one + "/deny", ID: "deny", Summary: "Deny a change, or withdraw one's own",
			Access: Known, On: OnAdmin, Request: decision, Answers: answer, Codes: codes(fault.Conflict), admin: (*Server).deny},
	}
}
