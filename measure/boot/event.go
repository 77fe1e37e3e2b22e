package boot

import (
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// Input names what the digest of an event comes from.
type Input string

// The inputs of a boot. Fixed is what no input changes.
const (
	Fixed         Input = "fixed"
	Firmware      Input = "firmware"
	Memory        Input = "memory"         // the TD HOB
	Variables     Input = "variables"      // Secure Boot and its keys
	ACPI          Input = "acpi"           // memory, vCPUs, devices and QEMU's version
	SMBIOS        Input = "smbios"         // memory, and what the VMM says of the machine
	BootVariables Input = "boot_variables" // BootOrder and Boot####: devices
	Kernel        Input = "kernel"
	Initrd        Input = "initrd"
	CommandLine   Input = "cmdline"
	UKI           Input = "uki"
	Disk          Input = "disk" // its partition table
	InitData      Input = "init_data"
	Phase         Input = "phase"   // of systemd's boot
	Runtime       Input = "runtime" // what the guest does once it runs
)

// Event is a predicted measurement.
type Event struct {
	PCR     int
	Type    eventlog.EventType
	Name    string   // in words
	Data    []byte   // what a log shows of it
	Content *Content // what is hashed
	Input   Input
	// Missing says what would have to be given to know the event; the content
	// is nil then.
	Missing string
}

// Measured is something that is measured as it is, and what a log shows of it.
type Measured struct {
	Data    []byte
	Content *Content
}

// Register is what a register holds after a boot.
type Register struct {
	Value   []byte   // nil if anything is missing
	Missing []string // why it is not known
	Inputs  []Input  // what it depends on
}

// Replay extends the events into registers, by the index that the function
// gives; -1 leaves an event out.
func Replay(events []Event, alg eventlog.Algorithm, index func(pcr int) int) (map[int]Register, error) {
	if alg.Size() == 0 {
		return nil, fmt.Errorf("replay: %s cannot be computed", alg)
	}
	out := map[int]Register{}
	for _, e := range events {
		i := index(e.PCR)
		if i < 0 {
			continue
		}
		r, ok := out[i]
		if !ok {
			r.Value = eventlog.Initial(i, alg)
		}
		r.extend(e, alg)
		out[i] = r
	}
	return out, nil
}

func (r *Register) extend(e Event, alg eventlog.Algorithm) {
	if e.Input != Fixed && !slices.Contains(r.Inputs, e.Input) {
		r.Inputs = append(r.Inputs, e.Input)
	}
	why := e.Missing
	if e.Content != nil {
		sum, err := e.Content.Sum(alg)
		if err == nil {
			if r.Value != nil {
				r.Value = eventlog.Extend(alg, r.Value, sum)
			}
			return
		}
		why = fmt.Sprintf("%s: %v", e.Name, err)
	}
	r.Value = nil
	if !slices.Contains(r.Missing, why) {
		r.Missing = append(r.Missing, why)
	}
}

// RuntimeEvent is an event of the attestation agent's log. A TD extends it into
// RTMR3.
func RuntimeEvent(r eventlog.RuntimeEvent) (Event, error) {
	if err := r.Validate(); err != nil {
		return Event{}, err
	}
	return Event{
		PCR: eventlog.DefaultRuntimePCR, Type: eventlog.EventTag, Name: "runtime event " + r.Operation, Input: Runtime, Data: r.Data(), Content: Bytes(r.Data()),
	}, nil
}

// Log appends the events to the log of a boot, with the digests that are known
// in the banks of the log. Where a digest is not known the event has none.
func Log(l *eventlog.Log, events []Event, index func(pcr int) int) {
	for _, e := range events {
		i := index(e.PCR)
		if i < 0 {
			continue
		}
		out := eventlog.Event{Index: i, Type: e.Type, Data: e.Data, Digests: map[eventlog.Algorithm][]byte{}}
		for _, b := range l.Header.Banks {
			if e.Content == nil {
				continue
			}
			if sum, err := e.Content.Sum(b.Algorithm); err == nil {
				out.Digests[b.Algorithm] = sum
			}
		}
		l.Events = append(l.Events, out)
	}
}
