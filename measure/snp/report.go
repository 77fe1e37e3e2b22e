// Package snp is the room of AMD SEV-SNP: the attestation report and its wire
// form, its verification, the prediction of its measurement, and a simulated
// vendor whose reports differ from AMD's only in the root they end in.
//
// The same parser, checks and claims serve real and simulated evidence. A
// simulated root counts only where [VerifierConfig] names it, and a verdict
// that rests on one says so (architecture, principle 2).
package snp

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes of the report in bytes (SEV-SNP firmware ABI, ATTESTATION_REPORT).
const (
	ReportSize = 0x4a0
	SignedSize = 0x2a0 // the signature covers everything before itself
)

// FirmwareVersion is the version of the SNP firmware.
type FirmwareVersion struct{ Major, Minor, Build uint8 }

// Report is an attestation report of version 2 to 5, field by field in the
// order of the report (kbs-protocol 16.2). Integers are little endian in the
// report; R and S keep its byte order.
type Report struct {
	Version            uint32
	GuestSVN           uint32
	Policy             uint64
	FamilyID           [16]byte
	ImageID            [16]byte
	VMPL               uint32
	SignatureAlgorithm uint32
	CurrentTCB         TCB
	PlatformInfo       uint64
	KeyInfo            uint32
	ReportData         [64]byte
	Measurement        [48]byte
	HostData           [32]byte
	IDKeyDigest        [48]byte
	AuthorKeyDigest    [48]byte
	ReportID           [32]byte
	ReportIDMA         [32]byte
	ReportedTCB        TCB
	CPUFamily          uint8 // CPU fields are 0 before version 3
	CPUModel           uint8
	CPUStepping        uint8
	ChipID             [64]byte
	CommittedTCB       TCB
	Current            FirmwareVersion
	Committed          FirmwareVersion
	LaunchTCB          TCB
	LaunchMitigations  uint64 // mitigation vectors are 0 before version 5
	CurrentMitigations uint64
	SignatureR         [72]byte
	SignatureS         [72]byte
}

// ParseReport reads a report. It accepts exactly [ReportSize] bytes of a known
// version with every reserved byte zero, so an accepted report marshals to the
// same bytes. It judges nothing.
func ParseReport(raw []byte) (*Report, error) {
	if len(raw) != ReportSize {
		return nil, fmt.Errorf("an SNP report has %d bytes, got %d", ReportSize, len(raw))
	}
	r := new(Report)
	c := cursor{buf: raw}
	r.layout(&c)
	if err := r.checkForm(); err != nil {
		return nil, err
	}
	if c.dirty >= 0 {
		return nil, fmt.Errorf("reserved byte at %#x of the SNP report is not zero", c.dirty)
	}
	return r, nil
}

// Marshal returns the [ReportSize] bytes of the report.
func (r *Report) Marshal() []byte {
	c := cursor{buf: make([]byte, ReportSize), write: true}
	r.layout(&c)
	return c.buf
}

// layout walks the report once, in the order of its bytes. It is the only
// description of the format; the cursor decides whether it reads or writes.
func (r *Report) layout(c *cursor) {
	c.dirty = -1
	c.u32(&r.Version)
	c.u32(&r.GuestSVN)
	c.u64(&r.Policy)
	c.bytes(r.FamilyID[:])
	c.bytes(r.ImageID[:])
	c.u32(&r.VMPL)
	c.u32(&r.SignatureAlgorithm)
	c.bytes(r.CurrentTCB[:])
	c.u64(&r.PlatformInfo)
	c.u32(&r.KeyInfo)
	c.zero(4)
	c.bytes(r.ReportData[:])
	c.bytes(r.Measurement[:])
	c.bytes(r.HostData[:])
	c.bytes(r.IDKeyDigest[:])
	c.bytes(r.AuthorKeyDigest[:])
	c.bytes(r.ReportID[:])
	c.bytes(r.ReportIDMA[:])
	c.bytes(r.ReportedTCB[:])
	if r.Version >= 3 {
		c.u8(&r.CPUFamily)
		c.u8(&r.CPUModel)
		c.u8(&r.CPUStepping)
	} else {
		c.zero(3)
	}
	c.zero(21)
	c.bytes(r.ChipID[:])
	c.bytes(r.CommittedTCB[:])
	c.version(&r.Current)
	c.version(&r.Committed)
	c.bytes(r.LaunchTCB[:])
	if r.Version >= 5 {
		c.u64(&r.LaunchMitigations)
		c.u64(&r.CurrentMitigations)
	} else {
		c.zero(16)
	}
	c.zero(SignedSize - c.at)
	c.bytes(r.SignatureR[:])
	c.bytes(r.SignatureS[:])
	c.zero(ReportSize - c.at)
}

// checkForm demands what every report must satisfy to have one meaning and one
// wire form.
func (r *Report) checkForm() error {
	if r.Version < 2 || r.Version > 5 {
		return fmt.Errorf("SNP report version %d is not one of 2 to 5", r.Version)
	}
	for _, t := range []struct {
		name string
		tcb  TCB
	}{
		{"current_tcb", r.CurrentTCB}, {"reported_tcb", r.ReportedTCB},
		{"committed_tcb", r.CommittedTCB}, {"launch_tcb", r.LaunchTCB},
	} {
		if !t.tcb.clean(r.turinLayout()) {
			return fmt.Errorf("reserved byte of %s of the SNP report is not zero", t.name)
		}
	}
	return nil
}

// Generation returns the processor generation that the report names itself.
// It fails for version 2, which does not tell, and for unknown processors.
func (r *Report) Generation() (Generation, error) {
	if r.Version < 3 {
		return "", errors.New("version 2 does not name the processor")
	}
	return generationOf(r.CPUFamily, r.CPUModel)
}

// turinLayout tells which of the two layouts the TCB fields have. Version 2
// names no processor; there, a chip id of eight bytes means Turin
// (guest-protocol 4.5).
func (r *Report) turinLayout() bool {
	if r.Version >= 3 {
		return r.CPUFamily == familyZen5
	}
	return r.ChipID != [64]byte{} && [56]byte(r.ChipID[8:]) == [56]byte{}
}

// SigningKey says which kind of key signed a report (KEY_INFO bits 2 to 4).
type SigningKey uint8

// The signing keys that the firmware ABI defines.
const (
	VCEK     SigningKey = 0 // a chip's own key
	VLEK     SigningKey = 1 // a key that AMD lent to a cloud
	Unsigned SigningKey = 7
)

// String returns the name of the key.
func (k SigningKey) String() string {
	switch k {
	case VCEK:
		return "VCEK"
	case VLEK:
		return "VLEK"
	case Unsigned:
		return "none"
	}
	return fmt.Sprintf("reserved(%d)", uint8(k))
}

// SigningKey returns the kind of key that signed the report.
func (r *Report) SigningKey() SigningKey { return SigningKey(r.KeyInfo >> 2 & 7) }

// authorKeyEnabled reports whether an author key signed the ID key (KEY_INFO
// bit 0).
func (r *Report) authorKeyEnabled() bool { return r.KeyInfo&1 != 0 }

// chipMasked reports whether the host hides the chip id (KEY_INFO bit 1).
func (r *Report) chipMasked() bool { return r.KeyInfo&2 != 0 }

// A cursor walks the bytes of a report, reading or writing. All lengths are
// fixed by layout, so it never leaves the buffer.
type cursor struct {
	buf   []byte
	at    int
	write bool
	dirty int // offset of the first reserved byte that was not zero, or -1
}

func (c *cursor) take(n int) []byte {
	b := c.buf[c.at : c.at+n]
	c.at += n
	return b
}

func (c *cursor) bytes(field []byte) {
	b := c.take(len(field))
	if c.write {
		copy(b, field)
		return
	}
	copy(field, b)
}

func (c *cursor) u8(field *uint8) {
	b := c.take(1)
	if c.write {
		b[0] = *field
		return
	}
	*field = b[0]
}

func (c *cursor) u32(field *uint32) {
	b := c.take(4)
	if c.write {
		binary.LittleEndian.PutUint32(b, *field)
		return
	}
	*field = binary.LittleEndian.Uint32(b)
}

func (c *cursor) u64(field *uint64) {
	b := c.take(8)
	if c.write {
		binary.LittleEndian.PutUint64(b, *field)
		return
	}
	*field = binary.LittleEndian.Uint64(b)
}

func (c *cursor) version(v *FirmwareVersion) {
	c.u8(&v.Build)
	c.u8(&v.Minor)
	c.u8(&v.Major)
	c.zero(1)
}

func (c *cursor) zero(n int) {
	start := c.at
	for i, b := range c.take(n) {
		if b != 0 && c.dirty < 0 {
			c.dirty = start + i
		}
	}
}
