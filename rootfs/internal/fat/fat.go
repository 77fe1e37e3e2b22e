// Package fat writes the FAT32 file system of an EFI partition with one file in
// it (Microsoft, FAT32 File System Specification 1.03; UEFI 2.11, 13.3). It has
// just what a firmware needs to find an image, and no time, no name of a
// machine and no number that is drawn: the same file is the same bytes.
package fat

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
)

const (
	sector   = 512
	reserved = 32 // sectors before the first table
	tables   = 2
	entry    = 32 // bytes of a directory entry
	backup   = 6  // sector with the copy of the first

	// A file system with fewer clusters is read as FAT16, whatever it says.
	minClusters = 65525

	// MaxFile is the largest file that is written, in bytes. With clusters of a sector
	// it has two million of them, which all drivers read.
	MaxFile = 1 << 30

	first     = 2 // number of the first cluster
	endOfFile = 0x0fff_ffff
	media     = 0xf8

	archive   = 0x20
	directory = 0x10
	label     = 0x08

	// epoch is the first day that FAT knows, 1980-01-01.
	epoch = 1<<5 | 1
)

// geometry says how large the parts are. A cluster is a sector.
type geometry struct {
	clusters  int
	tableSize int // sectors of one table
}

func (g geometry) sectors() int { return reserved + tables*g.tableSize + g.clusters }

// at is where a cluster lies, in bytes.
func (g geometry) at(cluster int) int {
	return (reserved + tables*g.tableSize + cluster - first) * sector
}

// layout has room for so many clusters; some are free, as firmware may want to write.
func layout(used int) geometry {
	clusters := max(used, minClusters) + 16
	return geometry{clusters, ((clusters+first)*4 + sector - 1) / sector}
}

// Write returns a file system with one file. The path has names of eight and three
// capital letters or digits, for example EFI/BOOT/BOOTX64.EFI.
func Write(path string, content []byte) ([]byte, error) {
	names := strings.Split(path, "/")
	short := make([][11]byte, len(names))
	for i, name := range names {
		var err error
		if short[i], err = shortName(name); err != nil {
			return nil, err
		}
	}
	if len(content) == 0 || len(content) > MaxFile {
		return nil, fmt.Errorf("a file of %d bytes: want 1 to %d", len(content), MaxFile)
	}
	filled := (len(content) + sector - 1) / sector
	g := layout(len(names) + filled)
	out := make([]byte, g.sectors()*sector)
	table := newTable(g)
	// The directories come first, a cluster each, the root before all others.
	for i := range names {
		self := first + i
		table.chain(self, 1)
		dir := out[g.at(self):]
		switch i {
		case 0:
			put(dir, [11]byte([]byte("EFI        ")), label, 0, 0)
		default:
			parent := self - 1
			if parent == first {
				parent = 0 // so is the root written
			}
			put(dir, [11]byte([]byte(".          ")), directory, self, 0)
			put(dir[entry:], [11]byte([]byte("..         ")), directory, parent, 0)
			dir = dir[entry:]
		}
		kind, size := byte(directory), 0
		if i == len(names)-1 {
			kind, size = archive, len(content)
		}
		put(dir[entry:], short[i], kind, self+1, size)
	}
	begin := first + len(names)
	table.chain(begin, filled)
	copy(out[g.at(begin):], content)
	sum := sha256.Sum256(content)
	g.boot(out, binary.LittleEndian.Uint32(sum[:]), table.used)
	for i := range tables {
		copy(out[(reserved+i*g.tableSize)*sector:], table.raw)
	}
	return out, nil
}

// shortName writes a name as directories have it: eight bytes and three.
func shortName(name string) ([11]byte, error) {
	var out [11]byte
	base, extension, _ := strings.Cut(name, ".")
	valid := func(s string) bool {
		return !strings.ContainsFunc(s, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') })
	}
	if base == "" || len(base) > 8 || len(extension) > 3 || !valid(base) || !valid(extension) {
		return out, fmt.Errorf("%.40q is no name of eight and three capital letters", name)
	}
	copy(out[:], "           ")
	copy(out[:], base)
	copy(out[8:], extension)
	return out, nil
}

// put writes an entry of a directory.
func put(at []byte, name [11]byte, attributes byte, cluster, size int) {
	le := binary.LittleEndian
	copy(at, name[:])
	at[11] = attributes
	for _, date := range []int{16, 18, 24} { // made, read, written
		le.PutUint16(at[date:], epoch)
	}
	le.PutUint16(at[20:], uint16(cluster>>16))
	le.PutUint16(at[26:], uint16(cluster))
	le.PutUint32(at[28:], uint32(size))
}

// allocation is the table that chains clusters.
type allocation struct {
	raw  []byte
	used int
}

func newTable(g geometry) *allocation {
	a := &allocation{raw: make([]byte, g.tableSize*sector)}
	binary.LittleEndian.PutUint32(a.raw, 0x0fff_ff00|media)
	binary.LittleEndian.PutUint32(a.raw[4:], endOfFile)
	return a
}

// chain makes a file of clusters that follow each other.
func (a *allocation) chain(begin, count int) {
	for i := range count {
		next := begin + i + 1
		if i == count-1 {
			next = endOfFile
		}
		binary.LittleEndian.PutUint32(a.raw[4*(begin+i):], uint32(next))
	}
	a.used += count
}

// boot writes the first sector, what is told of free clusters, and the copies of
// both.
func (g geometry) boot(out []byte, serial uint32, used int) {
	le := binary.LittleEndian
	b := out[:sector]
	copy(b, "\xeb\x58\x90MSWIN4.1")
	le.PutUint16(b[11:], sector)
	b[13] = 1 // sectors of a cluster
	le.PutUint16(b[14:], reserved)
	b[16] = tables
	b[21] = media
	le.PutUint16(b[24:], 32) // sectors of a track and heads, which nobody asks for
	le.PutUint16(b[26:], 64)
	le.PutUint32(b[32:], uint32(g.sectors()))
	le.PutUint32(b[36:], uint32(g.tableSize))
	le.PutUint32(b[44:], first) // of the root
	le.PutUint16(b[48:], 1)     // sector of what follows
	le.PutUint16(b[50:], backup)
	b[64], b[66] = 0x80, 0x29
	le.PutUint32(b[67:], serial)
	copy(b[71:], "EFI        FAT32   ")
	b[510], b[511] = 0x55, 0xaa
	info := out[sector : 2*sector]
	copy(info, "RRaA")
	copy(info[484:], "rrAa")
	le.PutUint32(info[488:], uint32(g.clusters-used))
	le.PutUint32(info[492:], uint32(first+used))
	info[510], info[511] = 0x55, 0xaa
	copy(out[backup*sector:], out[:2*sector])
}
