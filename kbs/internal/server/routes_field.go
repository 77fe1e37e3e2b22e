package server

import (
	"encoding/json"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// fieldRoutes are the admin calls of the field's protocol (kbs-protocol 7).
// They are on both listeners, because the field's client knows one address.
func fieldRoutes() []Route {
	const both = OnGuest | OnAdmin
	const resource = api.PathResource + "/{repo}/{type}/{tag}"
	empty := ok(rawBody(plainType))
	return []Route{
		{Pattern: "POST " + resource, ID: "v0PutResource", Summary: "Store a resource",
			Access: operator, On: both, Request: rawBody("application/octet-stream"), Answers: empty, admin: (*Server).v0PutResource},
		{Pattern: "DELETE " + resource, ID: "v0DeleteResource", Summary: "Delete a resource",
			Access: operator, On: both, Answers: empty, admin: (*Server).v0DeleteResource},
		{Pattern: "POST " + api.PathReferenceValue, ID: "v0PutReferenceValue", Summary: "Store the reference values of an RVPS message",
			Access: operator, On: both, Request: jsonBody(map[string]any{}), Answers: ok(rawBody(typeJSON)), admin: (*Server).v0PutReferenceValue},
		{Pattern: "GET " + api.PathReferenceValue + "/{name...}", ID: "v0GetReferenceValue", Summary: "Read the value of a reference value in force",
			Access: viewer, On: both, Answers: ok(jsonBody(json.RawMessage{})), admin: (*Server).v0GetReferenceValue},
		{Pattern: "POST " + api.PathResourcePolicy, ID: "v0PutResourcePolicy", Summary: "Replace the resource policy",
			Access: owner, On: both, Request: jsonBody(policyBody{}, "policy"), Answers: ok(Body{}), admin: (*Server).v0PutResourcePolicy},
		{Pattern: "GET " + api.PathResourcePolicy, ID: "v0ListResourcePolicies", Summary: "List the ids of the resource policies",
			Access: viewer, On: both, Answers: ok(jsonBody([]string{})), admin: (*Server).v0ListResourcePolicies},
		{Pattern: "POST " + api.PathAttestationPolicy, ID: "v0PutAttestationPolicy", Summary: "Replace an attestation policy",
			Access: owner, On: both, Request: jsonBody(policyBody{}, "policy"), Answers: ok(Body{}), admin: (*Server).v0PutAttestationPolicy},
	}
}
