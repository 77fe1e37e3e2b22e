package server

import (
	"encoding/json"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

// fieldRoutes are the admin calls of the field's protocol (kbs-protocol 7).
// They are on both listeners, because the field's client knows one address.
func fieldRoutes() []Route {
	const both = OnGuest | OnAdmin
	const resource = api.PathResource + "/{repo}/{type}/{tag}"
	empty := ok(rawBody(plainType))
	res, att := v0Policies{policy.Resource}, v0Policies{policy.Attestation}
	after := []Query{{"after", "only names that sort after this one", ""}}
	return []Route{
		{Pattern: "GET " + api.PathResource, ID: "v0ListResources", Summary: "List the paths of the resources; a Link header leads to the next page", Query: after,
			Access: viewer, On: both, Answers: ok(jsonBody([]string{})), admin: (*Server).v0ListResources},
		{Pattern: "POST " + resource, ID: "v0PutResource", Change: "resource.put", Summary: "Store a resource",
			Access: operator, On: both, Request: rawBody("application/octet-stream"), Answers: empty, admin: (*Server).v0PutResource, version: (*Server).versionOfResource},
		{Pattern: "DELETE " + resource, ID: "v0DeleteResource", Change: "resource.delete", Summary: "Delete a resource",
			Access: operator, On: both, Answers: empty, admin: (*Server).v0DeleteResource, version: (*Server).versionOfResource},
		{Pattern: "POST " + api.PathReferenceValue, ID: "v0PutReferenceValue", Change: "refvalue.put", Summary: "Store the reference values of an RVPS message",
			Access: operator, On: both, Request: jsonBody(map[string]any{}), Answers: ok(rawBody(typeJSON)), admin: (*Server).v0PutReferenceValue},
		{Pattern: "GET " + api.PathReferenceValue, ID: "v0ListReferenceValues", Summary: "List the names of the reference values; a Link header leads to the next page", Query: after,
			Access: viewer, On: both, Answers: ok(jsonBody([]string{})), admin: (*Server).v0ListReferenceValues},
		{Pattern: "DELETE " + api.PathReferenceValue + "/{name...}", ID: "v0DeleteReferenceValue", Change: "refvalue.delete", Summary: "Delete a reference value",
			Access: operator, On: both, Answers: ok(rawBody(typeJSON)), admin: (*Server).v0DeleteReferenceValue, version: (*Server).versionOfRefValue},
		{Pattern: "GET " + api.PathReferenceValue + "/{name...}", ID: "v0GetReferenceValue", Summary: "Read the value of a reference value in force",
			Access: viewer, On: both, Answers: ok(jsonBody(json.RawMessage{})), admin: (*Server).v0GetReferenceValue},
		{Pattern: "POST " + api.PathResourcePolicy, ID: "v0PutResourcePolicy", Change: "policy.put", Summary: "Replace the resource policy",
			Access: owner, On: both, Request: jsonBody(policyBody{}, "policy"), Answers: ok(Body{}), admin: (*Server).v0PutResourcePolicy, version: (*Server).versionOfResourcePolicy},
		{Pattern: "GET " + api.PathResourcePolicy, ID: "v0ListResourcePolicies", Summary: "List the ids of the resource policies",
			Access: viewer, On: both, Answers: ok(jsonBody([]string{})), admin: res.list},
		{Pattern: "GET " + api.PathResourcePolicy + "/{id...}", ID: "v0GetResourcePolicy", Summary: "Read a resource policy, in the form in which it is written",
			Access: viewer, On: both, Answers: ok(jsonBody(policyBody{})), admin: res.get},
		{Pattern: "DELETE " + api.PathResourcePolicy + "/{id...}", ID: "v0DeleteResourcePolicy", Change: "policy.delete", Summary: "Delete the resource policy of a prefix; without that of all, resource-policy, what no other is for is released to nobody",
			Access: owner, On: both, Answers: ok(Body{}), admin: res.delete},
		{Pattern: "GET " + api.PathAttestationPolicy, ID: "v0ListAttestationPolicies", Summary: "List the ids of the attestation policies",
			Access: viewer, On: both, Answers: ok(jsonBody([]string{})), admin: att.list},
		{Pattern: "GET " + api.PathAttestationPolicy + "/{id}", ID: "v0GetAttestationPolicy", Summary: "Read an attestation policy, in the form in which it is written",
			Access: viewer, On: both, Answers: ok(jsonBody(policyBody{})), admin: att.get},
		{Pattern: "DELETE " + api.PathAttestationPolicy + "/{id}", ID: "v0DeleteAttestationPolicy", Change: "policy.delete", Summary: "Delete an attestation policy",
			Access: owner, On: both, Answers: ok(Body{}), admin: att.delete},
		{Pattern: "POST " + api.PathAttestationPolicy, ID: "v0PutAttestationPolicy", Change: "policy.put", Summary: "Replace an attestation policy",
			Access: owner, On: both, Request: jsonBody(policyBody{}, "policy"), Answers: ok(Body{}), admin: (*Server).v0PutAttestationPolicy, version: (*Server).versionOfAttestationPolicy},
	}
}
