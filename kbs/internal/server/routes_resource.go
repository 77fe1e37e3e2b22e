package server

import (
	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// resourceRoutes has no way to read a value: only an attested guest has.
func resourceRoutes() []Route {
	const one = api.PathResources + "/{repo}/{type}/{tag}"
	info := ok(jsonBody(api.ResourceInfo{}))
	saw := Query{"version", "the version that the writer saw, as in If-Match; 0 is none", int64(0)}
	return []Route{
		{Pattern: "GET " + api.PathResources, ID: "listResources", Summary: "List the resources, without their values, a page at a time",
			Query: append(prefixQuery("paths"),
				Query{"limit", "at most this many (500)", int64(0)},
				Query{"continue", "what the page before gave", ""},
				Query{"owner", "only those of this owner", ""},
				Query{"label", "only those with this label, NAME=VALUE; repeatable", ""},
				Query{"expires_before", "only those that expire before this time", ""}),
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.ResourcePage{})), Codes: codes(fault.Unsupported), admin: (*Server).listResources},
		{Pattern: "GET " + one, ID: "describeResource", Summary: "Describe a resource and the versions that are kept",
			Access: viewer, On: OnAdmin, Answers: info, Codes: codes(fault.Unsupported), admin: (*Server).describeResource},
		{Pattern: "PUT " + one, ID: "putResource", Change: "resource.put", Summary: "Store a value; what is said about it stays, unless the query says something",
			Query: []Query{
				saw,
				{"owner", "who answers for it", ""},
				{"purpose", "what it is for", ""},
				{"content_type", "what the value is", ""},
				{"expires", "when the broker stops releasing it", ""},
				{"hold", "why it is released to nobody for now", ""},
				{"label", "NAME=VALUE; repeatable", ""},
				{"image", "the manifest digest or the repository of an image that it is for; repeatable", ""},
			},
			Access: operator, On: OnAdmin, Request: rawBody("application/octet-stream"), Answers: info,
			Codes: codes(fault.Conflict, fault.Unsupported), admin: (*Server).putResource, version: (*Server).versionOfResource},
		{Pattern: "PUT " + one + "/metadata", ID: "putResourceMetadata", Change: "resource.put", Summary: "Replace what is said about a resource",
			Query:  []Query{saw},
			Access: operator, On: OnAdmin, Request: jsonBody(api.ResourceMeta{}), Answers: info,
			Codes: codes(fault.Conflict, fault.Unsupported), admin: (*Server).putResourceMeta, version: (*Server).versionOfResource},
		{Pattern: "POST " + one + "/rollback", ID: "rollbackResource", Change: "resource.put", Summary: "Store a former value again, as a new version",
			Query:  []Query{saw},
			Access: operator, On: OnAdmin, Request: jsonBody(api.ResourceRollback{}, "to"), Answers: info,
			Codes: codes(fault.Conflict, fault.Unsupported), admin: (*Server).rollbackResource, version: (*Server).versionOfResource},
		{Pattern: "DELETE " + one + "/versions/{version}", ID: "destroyResourceVersion", Change: "resource.delete", Summary: "Wipe a former value for good",
			Query:  []Query{saw},
			Access: operator, On: OnAdmin, Answers: info,
			Codes: codes(fault.Conflict, fault.Unsupported), admin: (*Server).destroyResourceVersion, version: (*Server).versionOfResource},
		{Pattern: "DELETE " + one, ID: "deleteResource", Change: "resource.delete", Summary: "Delete a resource with all its versions",
			Query:  []Query{saw},
			Access: operator, On: OnAdmin, Answers: noContent(), Codes: codes(fault.Conflict, fault.Unsupported), admin: (*Server).deleteResource, version: (*Server).versionOfResource},
		{Pattern: "GET " + api.PathMasterKey, ID: "getMasterKey", System: true, Summary: "Describe the keys that the store is under, and the walk to the current one",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.MasterKey{})), admin: (*Server).getMasterKey},
		{Pattern: "POST " + api.PathMasterKey + "/rotate", ID: "rotateMasterKey", System: true, Change: "keys.rotate", Summary: "Put new values under another master key at once, and all others soon",
			Access: owner, On: OnAdmin, Request: jsonBody(api.RotateMasterKey{}), Answers: ok(jsonBody(api.MasterKey{})),
			Codes: codes(fault.Conflict), admin: (*Server).rotateMasterKey},
	}
}
