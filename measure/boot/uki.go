package boot

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// Unified is a unified kernel image: a kernel, its initrd and its command line
// as sections of one PE image, with systemd-stub before them.
type Unified struct {
	Image *Content
	Size  int
	// Stub is the version of systemd-stub, for example 252.
	Stub     int
	Sections map[string]*Content // what the stub measures, by name with the dot
	Line     []byte              // the text of .cmdline
	Inner    *Content            // the kernel in .linux as a PE image
	InnerLen int
	// Phases are the words that systemd-pcrphase extends later on, in order,
	// for example enter-initrd.
	Phases []string
}

// Phases are those that systemd extends until a system is up.
var Phases = []string{"enter-initrd", "leave-initrd", "sysinit", "ready"}

// oldestStub is the first whose measurements are known.
const oldestStub = 252

// order returns the sections in the order in which the stub measures them:
// .pcrsig never (measure.md c).
func order(stub int) []string {
	if stub < 253 {
		return []string{".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"}
	}
	return []string{".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey", ".profile", ".dtbauto", ".hwids"}
}

// ParseUnified reads a unified kernel image. The stub's version is found in its
// .sdmagic section, if it is 0.
func ParseUnified(raw []byte, stub int) (*Unified, error) {
	p, err := efi.ParsePE(raw)
	if err != nil {
		return nil, err
	}
	u := &Unified{Image: Image(p), Size: len(raw), Stub: stub, Sections: map[string]*Content{}}
	if u.Stub == 0 {
		magic, err := p.Contents(".sdmagic")
		if err != nil {
			return nil, err
		}
		if u.Stub, err = stubVersion(magic); err != nil {
			return nil, err
		}
	}
	if u.Stub < oldestStub {
		return nil, fmt.Errorf("systemd-stub %d is too old: what it measures is known from %d on", u.Stub, oldestStub)
	}
	for _, name := range append(order(u.Stub), ".pcrsig") {
		contents, err := p.Contents(name)
		if err != nil {
			return nil, err
		}
		if contents != nil {
			u.Sections[name] = Bytes(contents)
		}
		switch {
		case contents == nil:
		case name == ".cmdline":
			u.Line = contents
		case name == ".linux":
			inner, err := efi.ParsePE(contents)
			if err != nil {
				return nil, fmt.Errorf("section .linux: %w", err)
			}
			u.Inner, u.InnerLen = Image(inner), len(contents)
		}
	}
	if u.Inner == nil {
		return nil, fmt.Errorf("%w: no section .linux; is this a unified kernel image?", efi.ErrPE)
	}
	return u, nil
}

// stubVersion reads "#### LoaderInfo: systemd-stub 252.39-1~deb12u2 ####".
func stubVersion(magic []byte) (int, error) {
	_, rest, ok := bytes.Cut(magic, []byte("systemd-stub "))
	n := 0
	for n < len(rest) && n < 4 && rest[n] >= '0' && rest[n] <= '9' {
		n++
	}
	if version, err := strconv.Atoi(string(rest[:n])); ok && err == nil {
		return version, nil
	}
	return 0, fmt.Errorf("the image does not tell the version of its systemd-stub; give it")
}

// MeasureSections is what the stub measures of its sections, into PCR 11.
func (u *Unified) MeasureSections() []Event {
	var out []Event
	for _, name := range order(u.Stub) {
		c, ok := u.Sections[name]
		if !ok {
			continue
		}
		input := UKI
		switch name {
		case ".linux":
			input = Kernel
		case ".initrd":
			input = Initrd
		case ".cmdline":
			input = CommandLine
		}
		data := efi.UTF16Z(name)
		out = append(out,
			Event{PCR: 11, Type: eventlog.IPL, Name: "name of section " + name, Input: UKI, Data: data, Content: Bytes([]byte(name + "\x00"))},
			Event{PCR: 11, Type: eventlog.IPL, Name: "section " + name, Input: input, Data: data, Content: c})
	}
	return out
}

// PhaseEvents is what systemd-pcrphase adds to PCR 11.
func (u *Unified) PhaseEvents() []Event {
	var out []Event
	for _, p := range u.Phases {
		out = append(out, Event{PCR: 11, Type: eventlog.IPL, Name: "phase " + p, Input: Phase, Data: []byte(p), Content: Bytes([]byte(p))})
	}
	return out
}

// events is what firmware, stub and kernel measure of the image. With Secure Boot
// the stub keeps the firmware from judging the kernel that it starts, which is not
// signed by itself, and so from measuring it too (systemd 252,
// src/boot/efi/secure-boot.c).
func (u *Unified) events(s *SecureBoot) ([]Event, error) {
	if u.Stub < oldestStub {
		return nil, fmt.Errorf("systemd-stub %d is not known", u.Stub)
	}
	path := append([]byte(nil), efi.EndPath...) // depends on the disk, and is not hashed
	out := []Event{{
		PCR: 4, Type: eventlog.EFIBootServicesApplication, Name: "unified kernel image", Input: UKI,
		Data: efi.ImageLoad(uint64(u.Size), path), Content: u.Image,
	}}
	out = append(out, u.MeasureSections()...)
	inner := Event{PCR: 4, Type: eventlog.EFIBootServicesApplication, Name: "kernel in the image", Input: Kernel, Data: efi.ImageLoad(uint64(u.InnerLen), path)}
	switch {
	case s != nil && s.Missing != "":
		inner.Missing = "whether the firmware measures the kernel in the image: " + s.Missing
	case u.Stub == oldestStub:
		inner.Content = u.Inner
	default:
		inner.Missing = fmt.Sprintf("whether systemd-stub %d has the firmware measure the kernel in it is disputed", u.Stub)
	}
	if !s.enforced() || u.Stub != oldestStub {
		out = append(out, inner)
	}
	return append(out, u.options(), u.ramdisk()), nil
}

// options is the command line that the stub hands to the kernel.
func (u *Unified) options() Event {
	line := strings.TrimRight(string(u.Line), "\x00")
	if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
		e := loadOptions("")
		e.Missing = "the command line in the image has control characters, which stubs rewrite each in their own way"
		return e
	}
	return loadOptions(line)
}

// ramdisk is the initrd that the stub hands to the kernel: that of the image, to
// which it adds files if there are any.
func (u *Unified) ramdisk() Event {
	e := initrd(u.Sections[".initrd"])
	adds := slices.ContainsFunc([]string{".pcrsig", ".pcrpkey", ".ucode", ".profile"}, func(name string) bool { return u.Sections[name] != nil })
	switch {
	case e.Content == nil:
		e.Missing = "what a stub without an initrd hands over is not known"
	case u.Stub != oldestStub || adds:
		e.Content, e.Missing = nil, fmt.Sprintf("systemd-stub %d adds files to the initrd", u.Stub)
	}
	return e
}
