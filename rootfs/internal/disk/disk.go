// Package disk lays a root file system and its hash tree out as disks. That of
// the Kata runtime has two partitions of an MBR, the root and the tree of
// dm-verity, and a line of parameters that goes with them (kata-agent.md 4.1,
// 4.2). That of a firmware has a GPT, with what is started before them.
package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/image/erofs"
	"github.com/vouchsafe-cc/vouchsafe/image/verity"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
)

const (
	sector    = 512
	alignment = 1 << 20 // of partitions

	table     = 446 // where the four entries begin
	typeLinux = 0x83
)

// A Root is what a kernel must be told to read the root through dm-verity.
type Root struct {
	Hash   [32]byte
	Salt   []byte
	Blocks int64
}

// Verified is a root file system with the hash tree over it.
type Verified struct {
	Root
	Data, Tree []byte
}

// Verify makes the root file system of a tree, and what the kernel checks it by.
// The salt adds no safety to a root that everybody can read; a fixed one makes
// the same tree the same root.
func Verify(ctx context.Context, t *tree.Tree, salt []byte) (*Verified, error) {
	var entries []erofs.Entry
	for _, p := range t.Paths() {
		f, _ := t.Get(p)
		entries = append(entries, erofs.Entry{Path: p, Mode: f.Mode, Content: f.Content, Target: f.Target})
	}
	var data bytes.Buffer
	if _, err := erofs.WriteEntries(ctx, &data, entries); err != nil {
		return nil, err
	}
	root, hashes, err := hashTree(data.Bytes(), salt)
	if err != nil {
		return nil, err
	}
	return &Verified{root, data.Bytes(), hashes}, nil
}

// Kata returns the disk that a Kata runtime takes.
func (v *Verified) Kata() []byte {
	disk := make([]byte, alignment, 2*alignment+len(v.Data)+len(v.Tree))
	disk = append(disk, v.Data...)
	second := int64(len(disk)+alignment-1) / alignment * alignment
	disk = append(disk, make([]byte, second-int64(len(disk)))...)
	disk = append(disk, v.Tree...)
	copy(disk, masterBootRecord(v.Root, []partition{{alignment, int64(len(v.Data))}, {second, int64(len(v.Tree))}}))
	return disk
}

// hashTree returns the tree over data as it lies on a disk.
func hashTree(data, salt []byte) (Root, []byte, error) {
	b, err := verity.NewBuilder(salt)
	if err != nil {
		return Root{}, nil, err
	}
	if _, err := b.Write(data); err != nil {
		return Root{}, nil, err
	}
	var hashes bytes.Buffer
	r, err := b.Finish(&hashes)
	if err != nil {
		return Root{}, nil, err
	}
	return Root{r.Hash, r.Salt, r.Blocks}, hashes.Bytes(), nil
}

type partition struct{ start, size int64 } // bytes

// masterBootRecord is the first sector. Addresses by cylinder, head and sector
// say that they are beyond what that scheme can say; the signature of the disk is
// made of the root hash.
func masterBootRecord(r Root, parts []partition) []byte {
	b := make([]byte, sector)
	copy(b[440:444], r.Hash[:])
	for i, p := range parts {
		e := b[table+16*i:]
		copy(e[1:4], []byte{0xfe, 0xff, 0xff})
		e[4] = typeLinux
		copy(e[5:8], []byte{0xfe, 0xff, 0xff})
		binary.LittleEndian.PutUint32(e[8:], uint32(p.start/sector))
		binary.LittleEndian.PutUint32(e[12:], uint32((p.size+sector-1)/sector))
	}
	b[510], b[511] = 0x55, 0xaa
	return b
}

// Check takes a disk apart and reports whether its hash tree, and every block of
// its root, lead to the root hash. It returns the root's content.
func Check(disk []byte, want Root) ([]byte, error) {
	parts, err := partitions(disk)
	if err != nil {
		return nil, err
	}
	v, err := verified(parts[0], want)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(v.Tree, parts[1]) {
		return nil, errors.New("the hash tree on the disk is not that of the root")
	}
	return v.Data, nil
}

// verified computes the hash tree over a root again, which must lead to the hash
// that is told.
func verified(data []byte, want Root) (*Verified, error) {
	if len(data)%verity.BlockSize != 0 || int64(len(data)/verity.BlockSize) != want.Blocks {
		return nil, fmt.Errorf("the root has %d bytes, and its parameters tell %d blocks", len(data), want.Blocks)
	}
	got, tree, err := hashTree(data, want.Salt)
	if err != nil {
		return nil, err
	}
	if got.Hash != want.Hash {
		return nil, fmt.Errorf("the root's content leads to the root hash %x, and its parameters tell %x", got.Hash, want.Hash)
	}
	return &Verified{got, data, tree}, nil
}

func partitions(disk []byte) ([2][]byte, error) {
	var out [2][]byte
	if len(disk) < sector || disk[510] != 0x55 || disk[511] != 0xaa {
		return out, errors.New("the disk has no MBR")
	}
	for i := range out {
		e := disk[table+16*i:]
		start, size := int64(binary.LittleEndian.Uint32(e[8:]))*sector, int64(binary.LittleEndian.Uint32(e[12:]))*sector
		if e[4] != typeLinux || start < sector || start+size > int64(len(disk)) {
			return out, fmt.Errorf("partition %d of the disk is not as it should be", i+1)
		}
		out[i] = disk[start : start+size]
	}
	return out, nil
}

// Parameters is the line that Kata's kernel_verity_params takes.
func (r Root) Parameters() string {
	return fmt.Sprintf("root_hash=%x,salt=%x,data_blocks=%d,data_block_size=%d,hash_block_size=%d", r.Hash, r.Salt, r.Blocks, verity.BlockSize, verity.BlockSize)
}

// CommandLine is what the kernel is told of the root: as the Kata runtime makes
// it of the parameters, for a disk that is the machine's first virtio-blk device.
func (r Root) CommandLine() string { return r.commandLine("/dev/vda1", "/dev/vda2") }

// BootableCommandLine is the same for the disk that [Bootable] makes, which has
// the EFI partition before the root.
func (r Root) BootableCommandLine() string { return r.commandLine("/dev/vda2", "/dev/vda3") }

func (r Root) commandLine(data, hashes string) string {
	return fmt.Sprintf(`dm-mod.create="dm-verity,,,ro,0 %d verity 1 %s %s %d %d %d 0 sha256 %x %x" root=/dev/dm-0 rootfstype=erofs ro`,
		r.Blocks*verity.BlockSize/sector, data, hashes, verity.BlockSize, verity.BlockSize, r.Blocks, r.Hash, r.Salt)
}

// ParseParameters reads such a line.
func ParseParameters(line string) (Root, error) {
	var r Root
	values := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimSpace(line), ",") {
		key, value, ok := strings.Cut(part, "=")
		if _, twice := values[key]; !ok || twice {
			return r, fmt.Errorf("parameters of dm-verity: %.80q", part)
		}
		values[key] = value
	}
	hash, err := hex.DecodeString(values["root_hash"])
	salt, errSalt := hex.DecodeString(values["salt"])
	blocks, errBlocks := strconv.ParseInt(values["data_blocks"], 10, 64)
	size := strconv.Itoa(verity.BlockSize)
	if len(values) != 5 || err != nil || len(hash) != sha256.Size || errSalt != nil || errBlocks != nil || blocks <= 0 ||
		values["data_block_size"] != size || values["hash_block_size"] != size {
		return r, errors.New("parameters of dm-verity: want root_hash, salt, data_blocks, and blocks of 4096 bytes")
	}
	return Root{[32]byte(hash), salt, blocks}, nil
}
