package server

import (
	"encoding/json"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// appraisalRoutes are for whoever wants to know, before there is a guest, what
// one would get. Neither gives anything that only a guest may have.
func appraisalRoutes() []Route {
	return []Route{
		{Pattern: "POST " + api.PathAppraisals, ID: "appraise", Summary: "Judge evidence as if a guest had come with it; nothing is released and no token is made",
			Access: operator, On: OnAdmin, Request: jsonBody(api.AppraisalRequest{}, "evidence"), Answers: ok(jsonBody(api.Appraisal{})),
			Codes: codes(fault.EvidenceInvalid, fault.RootUntrusted, fault.BindingMismatch, fault.InitDataMismatch, fault.PlatformDisabled,
				fault.GuestRevoked, fault.PolicyError, fault.Unsupported, fault.Unavailable),
			admin: (*Server).appraise},
		{Pattern: "GET " + api.PathImagePolicies + "/{repo}/{type}/{tag}", ID: "getImagePolicy", Summary: "Read a resource that is an image policy, and no other",
			Access: operator, On: OnAdmin, Answers: ok(jsonBody(json.RawMessage{})), Codes: codes(fault.Unsupported), admin: (*Server).getImagePolicy},
	}
}
