package hub

// PulledImage is an image that was judged, decrypted, verified and mounted for
// one bundle.
type PulledImage struct {
	// Digest is that of the platform manifest, for example "sha256:5d1c...".
	Digest string
	// Rootfs is the absolute path of the writable overlay, bundle/rootfs.
	Rootfs string
	// Keys are the resources that opened its layers, as they were asked for.
	Keys []string
}
