package server

import (
	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// tokenRoutes are what relying parties need to verify tokens, and what
// administrators do with the keys behind them.
func tokenRoutes() []Route {
	return []Route{
		{Pattern: "GET " + api.PathJWKS, ID: "keySet", Summary: "The keys that attestation tokens are verified with",
			Access: Public, On: OnGuest, Answers: ok(Body{Type: typeKeySet, Of: api.KeySet{}}), open: (*Server).keySet},
		{Pattern: "GET " + api.PathDiscovery, ID: "discovery", Summary: "Where an OpenID Connect verifier finds the keys",
			Access: Public, On: OnGuest, Answers: ok(jsonBody(api.Discovery{})), open: (*Server).discovery},
		{Pattern: "GET " + api.PathTokenKeys, ID: "listTokenKeys", Summary: "List the keys that sign attestation tokens",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.TokenKeys{})), admin: (*Server).listTokenKeys},
		{Pattern: "POST " + api.PathRotateTokenKey, ID: "rotateTokenKey", Change: "keys.rotate", Summary: "Make the next key sign attestation tokens",
			Request: jsonBody(api.RotateTokenKey{}), Codes: codes(fault.Conflict),
			Access: owner, On: OnAdmin, Answers: ok(jsonBody(api.TokenKeys{})), admin: (*Server).rotateTokenKey},
	}
}
