// Package pull brings an image from a registry to a mountable root file
// system: the pipeline that joins registry, trust, crypt, unpack and store.
//
// The order is the security argument. The policy in force is fetched first.
// The image's name, as the user gave it, is judged by that policy over the
// manifest's digest, on every pull, whatever is cached. Only then is the first
// key unwrapped and the first layer fetched. Each layer flows
//
//	fetch -> size and digest -> decrypt, HMAC -> decompress -> diffID -> unpack
//
// through a few buffers into a staging directory, which becomes visible by one
// rename after every check on that line has held. A failure removes what the
// pull had made.
//
// The decompressor and the tar reader see bytes that are not authenticated
// yet. What they make of them stays in staging, and an error that a later
// stage meets is reported as that of the earliest stage whose check fails.
package pull
