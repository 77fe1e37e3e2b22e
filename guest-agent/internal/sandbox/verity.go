package sandbox

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/image/dm"
)

// checked is how a disk of the host's is checked while it is read, from a
// storage's options: the data lies in front of the offset, the hash tree behind.
// Whoever allows the root hash allows the content and nothing else.
type checked struct {
	root       []byte
	salt       []byte
	hashOffset uint64 // in bytes; the data ends here
	dataBlock  uint64 // bytes
	hashBlock  uint64 // bytes
	superblock bool   // one lies at the offset, and the tree behind it
}

const (
	verityHash  = 32 // bytes of SHA-256
	maxSalt     = 256
	verityBlock = 4096
)

// parseVerity reads the options X-kata.dmverity...; nil is a storage without.
func parseVerity(o map[string][]string) (*checked, error) {
	if on := o["dmverity-enabled"]; len(on) != 1 || on[0] != "true" {
		if len(on) > 0 || len(o["dmverity.roothash"]) > 0 {
			return nil, invalidf("dm-verity is neither on nor off")
		}
		return nil, nil
	}
	v := &checked{dataBlock: verityBlock, hashBlock: verityBlock, superblock: true}
	for name, read := range map[string]func(string) error{
		"dmverity.roothash":      func(s string) (err error) { v.root, err = hex.DecodeString(s); return err },
		"dmverity.salt":          func(s string) (err error) { v.salt, err = hex.DecodeString(s); return err },
		"dmverity.hashoffset":    func(s string) (err error) { v.hashOffset, err = strconv.ParseUint(s, 10, 63); return err },
		"dmverity.blocksize":     func(s string) (err error) { v.dataBlock, err = strconv.ParseUint(s, 10, 17); return err },
		"dmverity.hashsize":      func(s string) (err error) { v.hashBlock, err = strconv.ParseUint(s, 10, 17); return err },
		"dmverity.no-superblock": func(s string) error { v.superblock = s != "true"; return nil },
	} {
		switch values := o[name]; {
		case len(values) > 1:
			return nil, invalidf("option %s%s is given twice", kataOption, name)
		case len(values) == 1:
			if err := read(values[0]); err != nil {
				return nil, invalidf("option %s%s=%.80q is malformed", kataOption, name, values[0])
			}
		}
	}
	return v, v.check()
}

func (v *checked) check() error {
	for _, size := range []uint64{v.dataBlock, v.hashBlock} {
		if size < 512 || size > 64<<10 || size&(size-1) != 0 {
			return invalidf("%d bytes are no block of dm-verity", size)
		}
	}
	switch {
	case len(v.root) != verityHash:
		return invalidf("the root hash of dm-verity is not one of SHA-256")
	case len(v.salt) > maxSalt:
		return invalidf("the salt of dm-verity is too long")
	case v.hashOffset == 0 || v.hashOffset%v.dataBlock != 0 || v.hashOffset%v.hashBlock != 0:
		return invalidf("the hash tree of dm-verity cannot begin at byte %d", v.hashOffset)
	}
	return nil
}

// superblockSize is that of struct verity_sb of cryptsetup.
const superblockSize = 512

// readSuperblock compares what the disk says with what was allowed, and takes the
// salt from it, which the root hash covers.
func (v *checked) readSuperblock(r io.ReaderAt) error {
	b := make([]byte, superblockSize)
	if _, err := r.ReadAt(b, int64(v.hashOffset)); err != nil { //nolint:gosec // 63 bits
		return fmt.Errorf("read the superblock of dm-verity: %w", err)
	}
	le := binary.LittleEndian
	saltSize := int(le.Uint16(b[80:]))
	switch {
	case string(b[:8]) != "verity\x00\x00" || le.Uint32(b[8:]) != 1 || le.Uint32(b[12:]) != 1:
		return invalidf("there is no superblock of dm-verity where the data ends")
	case string(bytes.TrimRight(b[32:64], "\x00")) != "sha256":
		return invalidf("the hash of dm-verity is not SHA-256")
	case uint64(le.Uint32(b[64:])) != v.dataBlock || uint64(le.Uint32(b[68:])) != v.hashBlock || le.Uint64(b[72:]) != v.hashOffset/v.dataBlock:
		return invalidf("the superblock of dm-verity is that of other data")
	case saltSize > maxSalt:
		return invalidf("the salt of dm-verity is too long")
	}
	salt := b[88 : 88+saltSize]
	if v.salt != nil && !bytes.Equal(v.salt, salt) {
		return invalidf("the superblock of dm-verity has another salt")
	}
	v.salt = salt
	return nil
}

// target is the table of the device (Linux, Documentation/admin-guide/device-mapper/verity.rst).
func (v *checked) target(node string) dm.Target {
	salt, start := "-", v.hashOffset/v.hashBlock
	if len(v.salt) > 0 {
		salt = hex.EncodeToString(v.salt)
	}
	if v.superblock {
		start++ // it has a block of its own
	}
	return dm.Target{
		Kind: "verity", ReadOnly: true, Sectors: int64(v.hashOffset / dm.SectorSize), //nolint:gosec // 63 bits
		Params: fmt.Sprintf("1 %[1]s %[1]s %[2]d %[3]d %[4]d %[5]d sha256 %[6]x %[7]s",
			node, v.dataBlock, v.hashBlock, v.hashOffset/v.dataBlock, start, v.root, salt),
	}
}

// open returns the device whose blocks are checked.
func (v *checked) open(node, name string) (dm.Device, error) {
	if v.superblock {
		f, err := os.Open(node)
		if err != nil {
			return dm.Device{}, err
		}
		err = v.readSuperblock(f)
		_ = f.Close()
		if err != nil {
			return dm.Device{}, err
		}
	}
	return dm.Open(name, v.target(node))
}
