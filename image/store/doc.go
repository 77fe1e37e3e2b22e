// Package store keeps unpacked layers and overlay mounts, on disk or in memory.
//
//	DIR/lock                 one process at a time
//	DIR/staging/ID/          work in progress; removed at the next Open
//	DIR/layers/KEY/fs/       a complete layer
//	DIR/layers/KEY/boot      in which boot it was made
//	DIR/layers/KEY/image     with AsImages: the layer as EROFS with its hash tree, mounted at fs
//	DIR/layers/KEY/implied   directories that the layer uses and does not describe
//	DIR/mounts/ID/           upper, work and the list of layers of one overlay mount
//
// A layer appears under layers/ by one rename, and its owner calls for that
// only after digest, HMAC and diffID hold. So that a directory exists there is
// all the store ever believes of its disk, and not for longer than a boot: the
// disk under a guest belongs to the host, which may have changed it while the
// guest was off.
//
// A layer is found again by its [Key]: the diffID and, where the layer was
// encrypted, the identity of the layer key. Knowing the diffID of somebody
// else's encrypted layer therefore does not give its content; one must have
// obtained the key.
//
// References are counted in memory; what must outlive the process is read from
// mounts/, for a mount outlives the process that made it.
//
// Of each layer the store knows what it occupies, measured when it was
// committed; nothing changes a layer afterwards. Layers that nobody uses stay
// for the next image until a budget is exceeded, and go in the order of their
// last use. Removing means: out of sight under the lock, then file by file
// without it.
package store
