// Package store keeps unpacked layers and overlay mounts on disk.
//
//	DIR/lock                 one process at a time
//	DIR/staging/ID/          work in progress; removed at the next Open
//	DIR/layers/KEY/fs/       a complete layer; KEY/boot says in which boot it was made
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
package store
