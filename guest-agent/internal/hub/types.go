package hub

import ocispec "github.com/opencontainers/image-spec/specs-go/v1"

// PulledImage is an image that was judged, decrypted, verified and mounted for
// one bundle.
type PulledImage struct {
	// Digest is that of the platform manifest, for example "sha256:5d1c...".
	Digest string
	// Config is what the image itself says about its process. The host's view
	// of it is only a claim (kata-agent 2.11).
	Config ocispec.ImageConfig
	// Rootfs is the absolute path of the writable overlay, bundle/rootfs.
	Rootfs string
}
