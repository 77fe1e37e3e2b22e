// Package sigstore verifies, offline, what a signature of the sigstore
// ecosystem brings with it: the certificate that Fulcio issued for an identity,
// the entry in a transparency log of Rekor, and timestamps. Whom to believe is
// a [Root] that the caller's policy names; nothing is fetched, and no root is
// built in.
//
// It does not verify the signature itself, nor does it know what was signed:
// package trust does, and calls [Root.Check] with what it found. The order of
// the checks is that of the sigstore client specification (section "Verification").
//
// That this is no library is decided in docs/adr/0028.
package sigstore
