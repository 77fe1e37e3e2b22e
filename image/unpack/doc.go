// Package unpack turns the tar stream of one image layer into a directory in
// overlayfs form: whiteouts become 0:0 character devices, opaque markers
// become the trusted.overlay.opaque attribute.
//
// The stream is hostile: it is read before its diffID is known. Every path is
// resolved by the kernel with the layer directory as root (openat2 with
// RESOLVE_IN_ROOT), so that no symlink, absolute link or ".." in an archive
// reaches outside, and every object is created relative to the directory
// descriptor found that way, never by a path of several components. Such
// descriptors are kept until the archive removes a directory or a link, which
// may make a path lead elsewhere; nobody else writes to the layer meanwhile.
// Sizes, counts, depths, headers and attributes are limited.
//
// A layer is unpacked by itself, without the layers below it, so that layers
// can be unpacked at the same time. A directory that the archive uses but does
// not contain is therefore made with mode 0755, owner 0:0, and named in the
// [Result], so that a mount can show it as the layers below have it.
//
// An archive is applied entry by entry: the later of two entries of one name
// counts, and a directory after a file of its name hides what lower layers
// have there, as the file did. Names are made one after the other; small files
// get their content and metadata from a second goroutine (finisher).
//
// It needs Linux 5.8. Making devices, whiteouts and trusted attributes needs root;
// [Unowned] does without.
package unpack
