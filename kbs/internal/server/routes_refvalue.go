package server

import (
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

func refValueRoutes() []Route {
	const one = api.PathRefValues + "/{name...}"
	return []Route{
		{Pattern: "GET " + api.PathRefValues, ID: "listRefValues", Summary: "List the reference values",
			Query:  append(prefixQuery("names"), pageQuery(0)...),
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(items[api.RefValue]{})), admin: (*Server).listRefValues},
		{Pattern: "GET " + one, ID: "getRefValue", Summary: "Read a reference value",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.RefValue{})), admin: (*Server).getRefValue},
		{Pattern: "PUT " + one, ID: "putRefValue", Change: "refvalue.put", Summary: "Create or replace what an administrator says under a name",
			Access: operator, On: OnAdmin, Request: jsonBody(api.RefValue{}, "value"), Answers: ok(jsonBody(api.RefValue{})),
			Codes: codes(fault.Conflict), admin: (*Server).putRefValue, version: (*Server).versionOfRefValue},
		{Pattern: "DELETE " + one, ID: "deleteRefValue", Change: "refvalue.delete", Summary: "Delete a reference value, whoever vouched for it",
			Access: operator, On: OnAdmin, Answers: noContent(), Codes: codes(fault.Conflict), admin: (*Server).deleteRefValue, version: (*Server).versionOfRefValue},
	}
}

// refSetRoutes are those of signed documents and of who may sign them.
func refSetRoutes() []Route {
	const set, signer = api.PathRefSets + "/{id...}", api.PathSigners + "/{name}"
	return []Route{
		{Pattern: "GET " + api.PathRefSets, ID: "listRefSets", Summary: "List the documents of reference values", Query: pageQuery(100),
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(items[api.RefSet]{})), admin: (*Server).listRefSets},
		{Pattern: "POST " + api.PathRefSets, ID: "registerRefSet", Change: "refvalue.register", Summary: "Register a document of reference values (CoRIM), in place of an earlier one of its id",
			Query:  []Query{{"unsigned-reason", "why a document without a signature is to be believed", ""}},
			Access: operator, On: OnAdmin, Request: rawBody("application/rim+cbor"), Answers: ok(jsonBody(api.RefSet{})),
			Codes: codes(fault.Conflict, fault.SignatureRejected), admin: (*Server).registerRefSet},
		{Pattern: "GET " + set, ID: "getRefSet", Summary: "Read what is known of a document",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.RefSet{})), admin: (*Server).getRefSet},
		{Pattern: "DELETE " + set, ID: "withdrawRefSet", Change: "refvalue.withdraw", Summary: "Withdraw a document and all that it says",
			Access: operator, On: OnAdmin, Answers: noContent(), Codes: codes(fault.Conflict), admin: (*Server).withdrawRefSet},
		{Pattern: "GET " + api.PathSigners, ID: "listSigners", Summary: "List who may sign documents of reference values",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(items[api.Signer]{})), admin: (*Server).listSigners},
		{Pattern: "GET " + signer, ID: "getSigner", Summary: "Read a signer",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.Signer{})), admin: (*Server).getSigner},
		{Pattern: "PUT " + signer, ID: "putSigner", Change: "signer.put", Summary: "Trust a signer for names that begin in a certain way",
			Access: owner, On: OnAdmin, Request: jsonBody(api.Signer{}, "public_key", "prefixes"), Answers: ok(jsonBody(api.Signer{})),
			Codes: codes(fault.Conflict), admin: (*Server).putSigner},
		{Pattern: "DELETE " + signer, ID: "deleteSigner", Change: "signer.delete", Summary: "Trust a signer no more; what it signed stays",
			Access: owner, On: OnAdmin, Answers: noContent(), Codes: codes(fault.Conflict), admin: (*Server).deleteSigner},
	}
}

// pageQuery is that of lists which come in pages; absent is the size of a page
// that is not asked for, 0 for all.
func pageQuery(absent int) []Query {
	size := "at most this many, from 1 to 1000 (all)"
	if absent > 0 {
		size = fmt.Sprintf("at most this many, from 1 to 1000 (%d)", absent)
	}
	return []Query{{"after", "the last one of the page before", ""}, {"limit", size, int64(0)}}
}
