package server

import (
	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

func refValueRoutes() []Route {
	const one = api.PathRefValues + "/{name...}"
	return []Route{
		{Pattern: "GET " + api.PathRefValues, ID: "listRefValues", Summary: "List the reference values", Query: prefixQuery("names"),
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(items[api.RefValue]{})), admin: (*Server).listRefValues},
		{Pattern: "GET " + one, ID: "getRefValue", Summary: "Read a reference value",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.RefValue{})), admin: (*Server).getRefValue},
		{Pattern: "PUT " + one, ID: "putRefValue", Summary: "Create or replace a reference value",
			Access: operator, On: OnAdmin, Request: jsonBody(api.RefValue{}, "value"), Answers: ok(jsonBody(api.RefValue{})),
			Codes: codes(fault.Conflict), admin: (*Server).putRefValue},
		{Pattern: "DELETE " + one, ID: "deleteRefValue", Summary: "Delete a reference value",
			Access: operator, On: OnAdmin, Answers: noContent(), Codes: codes(fault.Conflict), admin: (*Server).deleteRefValue},
	}
}
