// Package registry resolves image names and moves blobs and manifests to and
// from registries and OCI layouts.
//
// Everything a registry says is foreign. A [Repository] hands out bytes only
// together with the check that they are the bytes that were asked for: a blob
// reader ends in an error unless length and digest match, and a manifest is
// never larger than [MaxManifest] nor of two minds about what it is. Plain
// HTTP happens only for hosts that the configuration names.
//
// Registries fail, so requests that change nothing are repeated, with random
// and growing waits, and a blob whose connection breaks or stalls goes on with
// a range request. See [Retry] for the bounds.
//
// Authentication, challenges and token refresh come from go-containerregistry;
// the requests themselves are made here, because a layer must be able to
// stream and its length be counted.
package registry
