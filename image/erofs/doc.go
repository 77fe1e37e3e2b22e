// Package erofs writes a directory as an EROFS image (Linux, Documentation/
// filesystems/erofs.rst; fs/erofs/erofs_fs.h), read-only and without
// compression: an unpacked layer as one file, of which a kernel can check every
// block with dm-verity when it is read. The marks of overlayfs (devices 0:0,
// trusted attributes) are kept, so the image serves as a lower layer as the
// directory does.
//
// The same directory gives the same bytes: names are sorted, the identity and
// the time of the image are zero. Nothing but whole blocks is written, from the
// front to the back, so that a hash tree can be made meanwhile.
//
//	block 0      superblock
//	block 1 ...  inodes, each with its attributes and, where it fits, the end of its content
//	then         content: directories and files in the order of their inodes
package erofs
