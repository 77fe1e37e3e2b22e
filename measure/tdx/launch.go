package tdx

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
)

// Launch is what a simulated TD is started from.
//
// A simulated TD is a process, not a virtual machine: it has no firmware. Its
// MRTD is made by the very chain that the TDX module uses, over the image in
// 4 kB pages from [ImageGPA] upward. Its event log has what a direct boot of a
// kernel has, in the same places: a separator in RTMR0, the image as the
// kernel in RTMR1, the command line as its load options in RTMR2.
type Launch struct {
	Image          []byte // what is executed, for example the agent binary
	CommandLine    string
	InitDataDigest []byte // goes into MRCONFIGID, cut or filled up to 48 bytes; may be empty
	// Boot is what the TD is to measure to instead, for one that stands for a
	// virtual machine; image and command line are not looked at.
	Boot *Prediction
	// Attributes are those of the TD; 0 means [DefaultAttributes].
	Attributes Attributes
	// TDX15 makes quotes of version 5 with a report of TDX 1.5, instead of
	// version 4 with one of TDX 1.0.
	TDX15 bool
	// Chip makes a platform that is not as the vendor wants it.
	Chip dcap.ChipOptions
	// Module changes what the report says of the TDX module; nil leaves it.
	Module func(*dcap.Module)
}

// ImageGPA is the guest physical address of a simulated TD's image.
const ImageGPA = 0x0100_0000

// DefaultAttributes keep the host from injecting #VE, and allow nothing else.
const DefaultAttributes = AttrSEPTVEDisable

const maxImage = 1 << 30 // bytes

// Prediction is what a simulated TD measures to before it runs.
type Prediction struct {
	MRTD Register
	RTMR [4]Register
	Log  *eventlog.Log // leads to RTMR
}

// Simulate returns what a simulated TD that is started like this measures to.
func Simulate(l Launch) (*Prediction, error) {
	switch {
	case l.Boot != nil:
		p := &Prediction{MRTD: l.Boot.MRTD, Log: l.Boot.Log}
		return p, p.replay()
	case len(l.Image) == 0:
		return nil, errors.New("the image is empty")
	case len(l.Image) > maxImage:
		return nil, fmt.Errorf("the image is larger than %d bytes", maxImage)
	}
	p := &Prediction{MRTD: buildMRTD(l.Image), Log: eventlog.NewCCEL()}
	separator := make([]byte, 4)
	options := utf16Bytes(l.CommandLine)
	p.Log.Add(1, eventlog.Separator, separator, separator)
	p.Log.Add(2, eventlog.EFIBootServicesApplication, imageLoad(len(l.Image)), l.Image)
	p.Log.Add(3, eventlog.EventTag, taggedOptions, options)
	return p, p.replay()
}

// replay computes the run-time registers from the log.
func (p *Prediction) replay() error {
	registers, err := p.Log.Replay(eventlog.SHA384)
	if err != nil {
		return err
	}
	for n := range p.RTMR {
		p.RTMR[n] = Register{}
		copy(p.RTMR[n][:], registers[n+1])
	}
	return nil
}

// taggedOptions is the event by which the Linux EFI stub logs its command
// line. The text names it; what is measured is the command line.
var taggedOptions = func() []byte {
	const text = "LOADED_IMAGE::LoadOptions\x00"
	out := binary.LittleEndian.AppendUint32(nil, 0x8f3b22ed)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(text)))
	return append(out, text...)
}()

// imageLoad is the data of the event for a loaded image: where it lies, and
// the device path File(kernel) (UEFI 2.11 section 10.3.5.4).
func imageLoad(size int) []byte {
	name := utf16Bytes("kernel")
	path := binary.LittleEndian.AppendUint16([]byte{4, 4}, uint16(4+len(name)))
	path = append(path, name...)
	path = append(path, 0x7f, 0xff, 4, 0)
	out := binary.LittleEndian.AppendUint64(nil, ImageGPA)
	out = binary.LittleEndian.AppendUint64(out, uint64(size))
	out = binary.LittleEndian.AppendUint64(out, 0)
	out = binary.LittleEndian.AppendUint64(out, uint64(len(path)))
	return append(out, path...)
}

// utf16Bytes is a text as UEFI keeps it, with a terminating zero.
func utf16Bytes(s string) []byte {
	var out []byte
	for _, c := range utf16.Encode([]rune(s + "\x00")) {
		out = binary.LittleEndian.AppendUint16(out, c)
	}
	return out
}

// buildMRTD adds and extends the pages of an image, one after the other
// (measure.md b.1).
func buildMRTD(image []byte) (mrtd Register) {
	b := builder{sha512.New384()}
	s := ovmf.TDXSection{GPA: ImageGPA, Data: image}
	for at := uint64(0); at < uint64(len(image)); at += pageSize {
		b.record("MEM.PAGE.ADD", ImageGPA+at)
		b.extend(s, at)
	}
	b.Sum(mrtd[:0])
	return mrtd
}
