// Package trust decides whether an image may run: it evaluates a policy.json
// and the cosign signatures beside an image.
//
// The policy is the field's containers-policy.json (guest-protocol 15.1), read
// strictly. Three things differ from other readers of that file, all towards
// refusing: an empty list of requirements makes the policy invalid instead of
// accepting everything; a requirement that is not built here (signedBy,
// keyless signatures) makes the whole policy invalid instead of being skipped;
// and a sigstoreSigned requirement without signedIdentity means
// matchRepository instead of no check at all.
//
// A verdict is data: which scope spoke, which requirement held, whose key
// signed. A refusal is a fault whose private cause is a [*Rejection].
package trust
