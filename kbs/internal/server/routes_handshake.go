package server

import (
	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
)

// evidenceCodes are the ways in which evidence can be wrong.
func evidenceCodes() []fault.Code {
	return codes(fault.SessionInvalid, fault.NonceMismatch, fault.EvidenceInvalid, fault.RootUntrusted, fault.BindingMismatch,
		fault.InitDataMismatch, fault.PlatformDisabled, fault.PolicyError, fault.GuestRevoked)
}

// handshakeRoutes are what guests call (kbs-protocol 3 and 4).
func handshakeRoutes() []Route {
	return []Route{
		{Pattern: "POST " + api.PathAuth, ID: "auth", Summary: "Open a handshake: the answer is a challenge and a session cookie",
			Access: Public, On: OnGuest, Request: jsonBody(api.Request{}, "version", "tee"), Answers: ok(jsonBody(api.Challenge{})),
			Codes: codes(fault.VersionUnsupported, fault.PlatformDisabled, fault.SelectorUnknown, fault.QuotaExceeded),
			Rate:  limit.Auth, stage: opAuth, open: (*Server).auth},
		{Pattern: "POST " + api.PathAttest, ID: "attest", Summary: "Answer the challenge with evidence: the answer is a token",
			Access: Public, On: OnGuest, Request: jsonBody(api.AnyAttestation{}, "tee-evidence"), Answers: ok(jsonBody(api.AttestResponse{})),
			Codes: evidenceCodes(), Rate: limit.Attest, stage: opAttest, open: (*Server).attest},
		{Pattern: "GET " + api.PathResource + "/{repo}/{type}/{tag}", ID: "getResource", Summary: "Fetch a resource, encrypted to the guest's key",
			Access: Attested, On: OnGuest, Answers: ok(jsonBody(api.JWE{})),
			Codes: codes(fault.PolicyDenied, fault.PolicyError, fault.QuotaExceeded), stage: opRelease, open: (*Server).getResource},
		{Pattern: "POST " + api.PathGuestRefusals, ID: "reportRefusal", Summary: "Report what the guest agent refused by itself; the answer is its ticket",
			Access: Attested, On: OnGuest, Request: jsonBody(api.GuestRefusal{}, "code"), Answers: ok(jsonBody(api.GuestRefusalReceipt{})),
			stage: opGuest, open: (*Server).guestRefusal},
	}
}
