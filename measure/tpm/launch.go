package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// Launch is what a simulated guest with a TPM is started from.
//
// A simulated guest is a process, not a virtual machine. Its boot is made up,
// but of the events of a real one: firmware version, separators, the image as a
// boot application in PCR 4, image and command line as the sections of a
// unified kernel image in PCR 11, the command line as load options in PCR 9.
type Launch struct {
	Image       []byte // what is executed, for example the agent binary
	CommandLine string
	// InitDataDigest is extended into PCR 8, as the attestation agent does at
	// its start; nothing of it is in the log. 32 bytes, or none.
	InitDataDigest []byte
}

const maxImage = 1 << 30 // bytes

// loadOptionsID is the tag under which Linux logs its command line.
const loadOptionsID = 0x8f3b22ed

func (l Launch) validate() error {
	switch {
	case len(l.Image) == 0:
		return errors.New("the image is empty")
	case len(l.Image) > maxImage:
		return fmt.Errorf("the image is larger than %d bytes", maxImage)
	case strings.ContainsRune(l.CommandLine, 0):
		return errors.New("the command line has a NUL")
	case len(l.InitDataDigest) != 0 && len(l.InitDataDigest) != Bank.Size():
		return fmt.Errorf("an init-data digest of %d bytes does not fit into a PCR: use sha256", len(l.InitDataDigest))
	}
	return nil
}

// Log returns the event log that the boot leaves behind.
func (l Launch) Log() (*eventlog.Log, error) {
	if err := l.validate(); err != nil {
		return nil, err
	}
	log, err := eventlog.New(eventlog.SHA256, eventlog.SHA384)
	if err != nil {
		return nil, err
	}
	add := func(pcr int, t eventlog.EventType, text string) { log.Add(pcr, t, []byte(text), []byte(text)) }
	add(0, eventlog.SCRTMVersion, "vouchsafe simulated firmware\x00")
	add(4, eventlog.EFIAction, "Calling EFI Application from Boot Option")
	for pcr := range 8 {
		add(pcr, eventlog.Separator, "\x00\x00\x00\x00")
	}
	log.Add(4, eventlog.EFIBootServicesApplication, make([]byte, 32), l.Image)
	for _, s := range []struct {
		name string
		data []byte
	}{{".linux", l.Image}, {".cmdline", []byte(l.CommandLine)}} {
		name := []byte(s.name + "\x00")
		log.Add(11, eventlog.IPL, name, name)
		log.Add(11, eventlog.IPL, name, s.data)
	}
	var options []byte
	for _, unit := range append(utf16.Encode([]rune(l.CommandLine)), 0) {
		options = binary.LittleEndian.AppendUint16(options, unit)
	}
	const label = "LOADED_IMAGE::LoadOptions\x00"
	tag := binary.LittleEndian.AppendUint32(nil, loadOptionsID)
	tag = append(binary.LittleEndian.AppendUint32(tag, uint32(len(label))), label...)
	log.Add(9, eventlog.EventTag, tag, options)
	add(5, eventlog.EFIAction, "Exit Boot Services Invocation")
	add(5, eventlog.EFIAction, "Exit Boot Services Returned with Success")
	return log, nil
}

// Predict returns the PCRs 0 to 23 of the SHA-256 bank that a simulated guest
// started like this will have.
func Predict(l Launch) ([][]byte, error) {
	log, err := l.Log()
	if err != nil {
		return nil, err
	}
	replayed, err := log.Replay(Bank)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, PCRs)
	for i := range out {
		out[i] = eventlog.Initial(i, Bank)
		if v, ok := replayed[i]; ok {
			out[i] = v
		}
	}
	if len(l.InitDataDigest) > 0 {
		out[InitDataPCR] = InitDataValue(l.InitDataDigest)
	}
	return out, nil
}
