package server

import (
	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

func policyRoutes() []Route {
	const name = "/{kind}/{id...}"
	one := jsonBody(api.Policy{})
	return []Route{
		{Pattern: "GET " + api.PathPolicies, ID: "listPolicies", Summary: "List the policies, each as its version in force or else its newest",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(items[api.Policy]{})), admin: (*Server).listPolicies},
		{Pattern: "GET " + api.PathPolicies + name, ID: "getPolicy", Summary: "Read a version of a policy",
			Query:  []Query{{"version", "its number (the one in force, or else the newest)", int64(0)}},
			Access: viewer, On: OnAdmin, Answers: ok(one), admin: (*Server).getPolicy},
		{Pattern: "PUT " + api.PathPolicies + name, ID: "putPolicy", Change: "policy.put", Summary: "Write a new version of a policy, into force or into an earlier stage",
			Access: owner, On: OnAdmin, Request: jsonBody(api.Policy{}, "rego"), Answers: ok(one),
			Codes: codes(fault.Conflict, fault.StageRequired), admin: (*Server).putPolicy, version: (*Server).versionOfPolicy},
		{Pattern: "DELETE " + api.PathPolicies + name, ID: "deletePolicy", Change: "policy.delete", Summary: "Take a policy out of force; its versions are kept",
			Access: owner, On: OnAdmin, Answers: noContent(), Codes: codes(fault.Conflict), admin: (*Server).deletePolicy, version: (*Server).versionOfPolicy},
		{Pattern: "GET " + api.PathPolicyVersions + name, ID: "listPolicyVersions", Summary: "List the versions of a policy that are kept",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(items[api.Policy]{})), admin: (*Server).policyVersions},
		{Pattern: "POST " + api.PathPolicyStages + name, ID: "movePolicy", Change: "policy.move", Summary: "Promote a version of a policy, take it back, or roll back to one that was in force",
			Access: owner, On: OnAdmin, Request: jsonBody(api.StageChange{}, "to"), Answers: ok(one),
			Codes: codes(fault.Conflict, fault.StageRequired, fault.NewlyAllowed), admin: (*Server).movePolicy, version: (*Server).versionOfPolicy},
		{Pattern: "GET " + api.PathPolicyShadows + name, ID: "getPolicyShadow", Summary: "Read what the shadow of a policy would have done",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.ShadowReport{})), admin: (*Server).policyShadow},
		{Pattern: "POST " + api.PathPolicyReplays + name, ID: "replayPolicy", Summary: "Ask what a candidate would do to the recorded decisions",
			Access: operator, On: OnAdmin, Request: jsonBody(api.ReplayRequest{}), Answers: ok(jsonBody(api.ReplayReport{})),
			admin: (*Server).replayPolicy},
		{Pattern: "GET " + api.PathDecisions, ID: "listDecisions", Summary: "List the recorded decisions, in the order of kind and digest",
			Query: []Query{{"since", "only those that were seen since this time (RFC 3339)", ""},
				{"after", "kind/digest of the last one of the page before", ""}, {"limit", "at most this many, from 1 to 1000 (100)", int64(0)}},
			Access: operator, On: OnAdmin, Answers: ok(jsonBody(items[api.Decision]{})), admin: (*Server).listDecisions},
	}
}
