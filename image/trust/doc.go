// Package trust decides whether an image may run: it evaluates a policy.json
// and the signatures beside an image.
//
// The policy is the field's containers-policy.json (guest-protocol 15.1), read
// strictly. Some things differ from other readers of that file, the first
// three towards refusing: an empty list of requirements makes the policy
// invalid instead of accepting everything; a requirement that is not built
// here makes the whole policy invalid instead of being skipped, and so does a scope that could never match; and a sigstoreSigned
// requirement without signedIdentity means matchRepository instead of no check
// at all (other readers take matchRepoDigestOrExact, which nothing that cosign
// signs by default satisfies).
//
// Some members are ours: threshold (how many of the keys must have signed),
// annotations (what a signature must carry besides), trustedRootPath and
// identities (whose certificates, logs and timestamps count, and who may sign
// without a key), and the signedIdentity insecureIgnoreIdentity, for signatures
// over a digest without a name, which is what cosign 3 makes. atLeast is a floor
// for versions in signed annotations, against older images by the same signer.
// The requirement attested is ours too: somebody must have attested something
// of the image, in an in-toto statement of a type, with conditions for what
// stands at places of its predicate. It does not ask for a signature: a policy
// that wants both has both requirements.
//
// Signatures of sigstoreSigned are looked for under cosign's tag, then among
// the manifest's referrers: simple signing, and bundles of version 0.3 with an
// in-toto statement or over the manifest itself. The policy's keys or its roots
// of trust judge them (docs/adr/0028); nothing is asked of a log or of the
// network beside the registry.
//
// The requirement notationSigned is ours: signatures of the Notary Project (JWS
// and COSE) among the referrers, by a trust store and trusted identities.
// Nobody is asked whether a certificate was revoked, which the policy must waive
// by name; one that has expired counts only with a timestamp by an authority
// that the policy names.
//
// Signatures of signedBy (GPG simple signing) lie in a lookaside storage that
// registries.d describes; without one such a requirement refuses.
//
// A verdict is data: which scope spoke, which requirement held, whose key
// signed what, and what was waived by name. A refusal is a fault whose private
// cause is a [*Rejection].
package trust
