package erofs

import (
	"encoding/binary"
	"hash/crc32"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// BlockSize is the unit of an image.
	BlockSize = 4096

	slot      = 32 // bytes that inode numbers count
	inodeSize = 64 // of the extended form

	superOffset = 1024
	magic       = 0xE0F5E1E2

	featureChecksum = 1 << 0 // compatible
	featureMtime    = 1 << 1 // compatible: inodes have their own times
	featureChunks   = 1 << 2 // incompatible: files with holes

	chunkBits = 16 // of the smallest chunk: unpack makes holes of this size
	noBlock   = ^uint32(0)
)

// Ways in which content is laid out (erofs_inode_datalayout).
type dataLayout uint16

const (
	plain  dataLayout = 0 // in blocks of its own
	inline dataLayout = 2 // the last part beside the inode
	chunks dataLayout = 4 // by a table of chunks, of which some are holes
)

// superblock is struct erofs_super_block with its checksum, as block 0.
func superblock(root uint16, inodes uint64, blocks uint32, holes bool) []byte {
	block := make([]byte, BlockSize)
	sb := block[superOffset:]
	le := binary.LittleEndian
	le.PutUint32(sb[0:], magic)
	le.PutUint32(sb[8:], featureChecksum|featureMtime)
	sb[12] = 12 // log2 of the block size
	le.PutUint16(sb[14:], root)
	le.PutUint64(sb[16:], inodes)
	le.PutUint32(sb[36:], blocks)
	if holes {
		le.PutUint32(sb[80:], featureChunks)
	}
	// The kernel's CRC32C has no final inversion.
	le.PutUint32(sb[4:], ^crc32.Checksum(sb, crc32.MakeTable(crc32.Castagnoli)))
	return block
}

// marshal is struct erofs_inode_extended.
func (n *node) marshal() []byte {
	b := make([]byte, inodeSize, inodeSize+len(n.attributes))
	le := binary.LittleEndian
	le.PutUint16(b[0:], 1|uint16(n.layout)<<1)
	if len(n.attributes) > 0 {
		le.PutUint16(b[2:], uint16((len(n.attributes)-attributeHeader)/4+1))
	}
	le.PutUint16(b[4:], uint16(n.stat.Mode))
	le.PutUint64(b[8:], uint64(n.size))
	le.PutUint32(b[16:], n.union())
	le.PutUint32(b[20:], n.number)
	le.PutUint32(b[24:], n.stat.Uid)
	le.PutUint32(b[28:], n.stat.Gid)
	le.PutUint64(b[32:], uint64(n.stat.Mtim.Sec))
	le.PutUint32(b[40:], uint32(n.stat.Mtim.Nsec))
	le.PutUint32(b[44:], n.links)
	return append(b, n.attributes...)
}

// union is i_u: a device's number, a chunk format, or where the content starts.
func (n *node) union() uint32 {
	switch n.stat.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		major, minor := unix.Major(n.stat.Rdev), unix.Minor(n.stat.Rdev)
		return minor&0xff | major<<8 | (minor&^0xff)<<12 // new_encode_dev of the kernel
	}
	switch {
	case n.layout == chunks:
		return uint32(n.chunkBits - 12)
	case n.blocks() == 0:
		return noBlock
	}
	return n.start
}

// fileType is what a directory says of its entries.
func fileType(mode uint32) byte {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return 1
	case unix.S_IFDIR:
		return 2
	case unix.S_IFCHR:
		return 3
	case unix.S_IFBLK:
		return 4
	case unix.S_IFIFO:
		return 5
	case unix.S_IFSOCK:
		return 6
	}
	return 7 // symlink
}

// attributeHeader is struct erofs_xattr_ibody_header: no filter, nothing shared.
const attributeHeader = 12

// namespaces are the prefixes that are not spelled out. An access list's is its
// whole name.
var namespaces = []struct {
	prefix string
	index  byte
}{{"system.posix_acl_access", 2}, {"system.posix_acl_default", 3}, {"user.", 1}, {"trusted.", 4}, {"security.", 6}}

// appendAttribute appends one attribute, or reports that the format has no way
// to say its name.
func appendAttribute(b []byte, name string, value []byte) ([]byte, bool) {
	for _, ns := range namespaces {
		rest, ok := strings.CutPrefix(name, ns.prefix)
		if !ok || len(rest) > 255 || len(value) > 65535 {
			continue
		}
		b = append(b, byte(len(rest)), ns.index)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
		b = append(append(b, rest...), value...)
		return append(b, make([]byte, -len(b)&3)...), true
	}
	return b, false
}
