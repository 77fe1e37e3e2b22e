// Package keyset carries the wrapped keys of an encrypted image beside it, as an
// OCI referrer of its manifest, instead of in it. There recipients come and go
// without a change of the image's digest or of its signatures (docs/adr/0027).
//
// A key set is an image manifest (OCI 1.1) of artifact type [ArtifactType] that
// names the image's manifest as its subject and has one layer, a [Set] as JSON.
//
// Nobody signs a key set. What is in it is therefore the word of whoever can
// write to the repository, and only packets whose wrap authenticates itself are
// taken from it. A wrong key opens nothing: the layer's HMAC, keyed with it, is
// in the manifest, which the signature covers.
package keyset
