// Package keyprovider is a key provider as ocicrypt asks one (its
// docs/keyprovider.md; guest-protocol 11.2 and 12): skopeo, buildah and containerd
// then encrypt images for guests of the broker, and open them where the keys are.
//
// The question comes on standard input, an answer on standard output, or both
// over gRPC. The package knows the messages; who a layer is wrapped for and where
// keys are found is the caller's.
package keyprovider
