package securemount

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/luks2"
	"github.com/vouchsafe-cc/vouchsafe/image/dm"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fakeKeys is a broker.
type fakeKeys struct {
	value []byte
	err   error
	asked []string
	gave  []secret.Bytes
}

func (k *fakeKeys) Resource(_ context.Context, uri string) (secret.Bytes, error) {
	k.asked = append(k.asked, uri)
	k.gave = append(k.gave, secret.Copy(k.value))
	return k.gave[len(k.gave)-1], k.err
}

func (k *fakeKeys) Unseal(ctx context.Context, text string) (secret.Bytes, error) {
	return k.Resource(ctx, text)
}

// fakeKernel keeps what the real one would. Its disk is shared by all opens, as
// that of a host is.
type fakeKernel struct {
	disk     []byte
	open     int
	maps     map[string]dm.Target
	mounts   []string
	links    []string
	programs []string
	keys     [][]byte // copies of those handed over

	fail  string // the step that fails, "" for none
	steps []string
}

var errFake = errors.New("the kernel says no")

func newFake(mib int) *fakeKernel {
	return &fakeKernel{disk: make([]byte, mib<<20), maps: map[string]dm.Target{}}
}

func (k *fakeKernel) step(name string) error {
	k.steps = append(k.steps, name)
	if k.fail == name {
		return errFake
	}
	return nil
}

func (k *fakeKernel) openDisk(Device) (disk, error) {
	if err := k.step("open"); err != nil {
		return nil, err
	}
	k.open++
	return fakeDisk{k}, nil
}

type fakeDisk struct{ k *fakeKernel }

func (d fakeDisk) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(d.k.disk).ReadAt(p, at)
}
func (d fakeDisk) WriteAt(p []byte, at int64) (int, error) { return copy(d.k.disk[at:], p), nil }
func (d fakeDisk) Size() int64                             { return int64(len(d.k.disk)) }
func (d fakeDisk) Number() string                          { return "8:16" }
func (d fakeDisk) Flush() error                            { return nil }
func (d fakeDisk) Discard()                                {}
func (d fakeDisk) Close() error                            { d.k.open--; return nil }

// mapDevice formats integrity data as the kernel does: where there are zeros.
func (k *fakeKernel) mapDevice(name string, t dm.Target, key secret.Bytes) (string, error) {
	step := "map " + t.Kind
	if t.Kind == "integrity" && t.Sectors == sectorSize/dm.SectorSize {
		step = "format integrity"
	}
	if err := k.step(step); err != nil {
		return "", err
	}
	if step == "format integrity" {
		at := 0
		if strings.Contains(t.Params, " 32768 ") {
			at = luks2.HeaderSize
		}
		if len(bytes.Trim(k.disk[at:at+superblock], "\x00")) == 0 {
			copy(k.disk[at:], "integrt\x00")
			binary.LittleEndian.PutUint16(k.disk[at+10:], luks2.TagSize)
			binary.LittleEndian.PutUint64(k.disk[at+16:], 1024)
			k.disk[at+28] = 3
		}
	}
	if key.Len() > 0 {
		k.keys = append(k.keys, bytes.Clone(key.Reveal()))
	}
	if _, taken := k.maps[name]; taken {
		return "", errors.New("the name is taken")
	}
	k.maps[name] = t
	return k.node(name), nil
}

func (k *fakeKernel) unmapDevice(_ context.Context, name string) error {
	if err := k.step("unmap " + k.maps[name].Kind); err != nil {
		return err
	}
	delete(k.maps, name)
	return nil
}

func (k *fakeKernel) failDevice(name string, sectors int64) error {
	k.maps[name] = dm.Target{Kind: "error", Sectors: sectors}
	return k.step("fail")
}

func (k *fakeKernel) node(name string) string { return "/dev/mapper/" + name }
func (k *fakeKernel) zero(string) error       { return k.step("zero") }

func (k *fakeKernel) run(_ context.Context, program string, args ...string) error {
	k.programs = append(k.programs, program+" "+strings.Join(args, " "))
	return k.step("mkfs")
}

func (k *fakeKernel) mount(_ string, dir *os.File, _ string, _ uintptr) error {
	if err := k.step("mount"); err != nil {
		return err
	}
	path, err := os.Readlink(fdPath(dir))
	k.mounts = append(k.mounts, path)
	return err
}

func (k *fakeKernel) unmount(path string) error {
	if err := k.step("unmount"); err != nil {
		return err
	}
	k.mounts = slices.DeleteFunc(k.mounts, func(m string) bool { return m == path })
	return nil
}

func (k *fakeKernel) link(_, path string) error {
	k.links = append(k.links, path)
	return k.step("link")
}

func (k *fakeKernel) unlink(path string) error {
	k.links = slices.DeleteFunc(k.links, func(l string) bool { return l == path })
	return k.step("unlink")
}

// left says what is left behind.
func (k *fakeKernel) left(t *testing.T) {
	t.Helper()
	if k.open != 0 || len(k.maps) > 0 || len(k.mounts) > 0 || len(k.links) > 0 {
		t.Errorf("left behind: %d open devices, mappings %v, mounts %v, links %v", k.open, k.maps, k.mounts, k.links)
	}
}

func (k *fakeKernel) empty() bool { return bytes.Equal(k.disk, make([]byte, len(k.disk))) }
