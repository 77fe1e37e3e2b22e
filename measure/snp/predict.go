package snp

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure/sev"
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
// A virtual machine has firmware and virtual CPUs: see [VM].
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

const maxImage = 1 << 30 // bytes

// Predict returns the launch measurement that a simulated guest started like
// this will have.
func Predict(l Launch) (measurement [48]byte, err error) {
	switch {
	case len(l.Image) == 0:
		return measurement, errors.New("the image is empty")
	case len(l.Image) > maxImage:
		return measurement, fmt.Errorf("the image is larger than %d bytes", maxImage)
	}
	var d launchDigest
	d.addData(pageNormal, ImageGPA, l.Image)
	hashes, err := sev.HashBoot(l.Image, nil, l.CommandLine)
	if err != nil {
		return measurement, err
	}
	table := hashes.Table()
	d.addData(pageNormal, HashesGPA, table[:])
	return d, nil
}

const pageSize = 4096 // bytes

// pageType is the type of a page in PAGE_INFO (measure.md a.1).
type pageType byte

const (
	pageNormal     pageType = 1
	pageVMSA       pageType = 2
	pageZero       pageType = 3
	pageUnmeasured pageType = 4
	pageSecrets    pageType = 5
	pageCPUID      pageType = 6
)

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
