package snp

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Launch is what a simulated guest is started from.
//
// A simulated guest is a process, not a virtual machine: it has no firmware
// and no virtual CPU. Its launch digest is made by the very chain that the
// AMD secure processor uses, but over this layout of guest memory:
//
//   - the image, page by page from [ImageGPA] upward, as normal pages, the last
//     one filled up with zeros;
//   - one page at [HashesGPA] with the kernel-hashes table, which holds the
//     SHA-256 of the command line and of the image.
//
// Predicting the digest of a real guest takes its firmware's metadata and the
// initial state of its CPUs; that is not built yet, and [Predict] does not
// pretend to it.
type Launch struct {
	Image          []byte // what is executed, for example the agent binary
	CommandLine    string
	InitDataDigest []byte // goes into HOST_DATA, cut or filled up to 32 bytes; may be empty
	// Policy is the guest policy; 0 means [DefaultPolicy].
	Policy uint64
}

// The layout of a simulated guest in guest physical addresses.
const (
	HashesGPA = 0x0080_f000
	ImageGPA  = 0x0100_0000
)

// DefaultPolicy allows SMT and neither debugging nor migration.
const DefaultPolicy = 0x3_0000

const (
	maxImage       = 1 << 30 // bytes
	maxCommandLine = 64 << 10
)

// Predict returns the launch measurement that a simulated guest started like
// this will have.
func Predict(l Launch) (measurement [48]byte, err error) {
	switch {
	case len(l.Image) == 0:
		return measurement, errors.New("the image is empty")
	case len(l.Image) > maxImage:
		return measurement, fmt.Errorf("the image is larger than %d bytes", maxImage)
	case len(l.CommandLine) > maxCommandLine:
		return measurement, fmt.Errorf("the command line is longer than %d bytes", maxCommandLine)
	case strings.ContainsRune(l.CommandLine, 0):
		return measurement, errors.New("the command line contains a NUL")
	}
	var d launchDigest
	d.addData(pageNormal, ImageGPA, l.Image)
	table := kernelHashes(l.CommandLine, nil, l.Image)
	d.addData(pageNormal, HashesGPA, table[:])
	return d, nil
}

const pageSize = 4096 // bytes

// pageType is the type of a page in PAGE_INFO (measure.md a.1).
type pageType byte

const pageNormal pageType = 1

// launchDigest is the running launch digest, zero at first. Every page that
// is added replaces it by the SHA-384 of a PAGE_INFO record.
type launchDigest [sha512.Size384]byte

// addData adds the pages that data covers from gpa upward, the last one filled
// up with zeros.
func (d *launchDigest) addData(t pageType, gpa uint64, data []byte) {
	for ; len(data) > 0; gpa += pageSize {
		page := data[:min(pageSize, len(data))]
		data = data[len(page):]
		if len(page) < pageSize {
			var full [pageSize]byte
			copy(full[:], page)
			page = full[:]
		}
		d.add(t, gpa, sha512.Sum384(page))
	}
}

// add makes one PAGE_INFO record of 0x70 bytes: the digest so far, that of the
// contents, the record's length, the page type, the flags that KVM leaves
// zero, and the address.
func (d *launchDigest) add(t pageType, gpa uint64, contents [sha512.Size384]byte) {
	var info [0x70]byte
	copy(info[0x00:], d[:])
	copy(info[0x30:], contents[:])
	binary.LittleEndian.PutUint16(info[0x60:], uint16(len(info)))
	info[0x62] = byte(t)
	binary.LittleEndian.PutUint64(info[0x68:], gpa)
	*d = sha512.Sum384(info[:])
}

// GUIDs of the kernel-hashes table, in the mixed byte order that they have in
// memory (measure.md a.4).
var (
	guidHashTable   = guid(0x9438d606, 0x4f22, 0x4cc9, 0xb479a793d411fd21)
	guidCommandLine = guid(0x97d02dd8, 0xbd20, 0x4c94, 0xaa78e7714d36ab2a)
	guidInitrd      = guid(0x44baf731, 0x3a2f, 0x4bd7, 0x9af141e29169781d)
	guidKernel      = guid(0x4de79437, 0xabd2, 0x427f, 0xb835d5b172d2045b)
)

func guid(a uint32, b, c uint16, d uint64) (g [16]byte) {
	binary.LittleEndian.PutUint32(g[0:], a)
	binary.LittleEndian.PutUint16(g[4:], b)
	binary.LittleEndian.PutUint16(g[6:], c)
	binary.BigEndian.PutUint64(g[8:], d)
	return g
}

// kernelHashes returns the table by which a command line, an initrd and a
// kernel are measured: 168 bytes filled up to 176.
func kernelHashes(commandLine string, initrd, kernel []byte) (table [176]byte) {
	const entry = 16 + 2 + sha256.Size
	b := table[:0]
	b = append(b, guidHashTable[:]...)
	b = binary.LittleEndian.AppendUint16(b, 16+2+3*entry)
	for _, e := range []struct {
		guid [16]byte
		data []byte
	}{
		{guidCommandLine, append([]byte(commandLine), 0)}, {guidInitrd, initrd}, {guidKernel, kernel},
	} {
		sum := sha256.Sum256(e.data)
		b = append(b, e.guid[:]...)
		b = binary.LittleEndian.AppendUint16(b, entry)
		b = append(b, sum[:]...)
	}
	return table
}
