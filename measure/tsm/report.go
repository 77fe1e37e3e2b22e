package tsm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/pause"
)

// ReportDir is where the kernel makes reports (Linux
// Documentation/ABI/testing/configfs-tsm-report).
const ReportDir = "sys/kernel/config/tsm/report"

// Providers that kernels know by these names.
const (
	ProviderSNP = "sev_guest"
	ProviderTDX = "tdx_guest"
	ProviderCCA = "arm_cca_guest"
)

// Limits on what the kernel hands out, in bytes. A TDX quote has 5 kB, a
// certificate table 8 kB, a CCA token 3 kB.
const (
	maxAttribute = 4 << 10
	MaxBlob      = 1 << 20
)

// MaxInBlob is the longest input of a report in bytes (TSM_REPORT_INBLOB_MAX).
const MaxInBlob = 64

// ErrRaced means that another process wrote to our report while it was made, so
// that it may answer that one's question and not ours.
var ErrRaced = errors.New("another writer interfered with the report")

// ErrNoProvider means that the kernel has no configfs-tsm, or no driver of the
// platform behind it.
var ErrNoProvider = errors.New("the kernel has no report provider")

// Service asks for the report of a service beside the guest's kernel, such as
// the SVSM below it, together with the manifest of what runs there.
type Service struct {
	Provider        string // "svsm"
	GUID            string // of one service; empty for all of them
	ManifestVersion string // empty for the service's default
}

// Request says what to report about.
type Request struct {
	Provider string // the one that must answer
	InBlob   []byte // at most MaxInBlob bytes
	// PrivLevel is the VMPL to report for; nil means the lowest number that the
	// kernel may ask for.
	PrivLevel *uint8
	Service   *Service // nil for none
}

// Report is what the kernel answered.
type Report struct {
	Out      []byte // report, quote or token
	Aux      []byte // SNP: the host's certificate table. Nil if there is none.
	Manifest []byte // of a [Service]; nil without one
}

// Reports makes reports by configfs-tsm. It is safe for concurrent use; the
// kernel makes one report after the other.
type Reports struct {
	Kernel Kernel
	// Wait pauses between two attempts on a busy device; nil waits in truth.
	Wait func(ctx context.Context, d time.Duration) error
}

// A device that another request keeps busy is asked again, for three seconds:
// the TDX driver itself looks once a second whether its host is done.
const (
	busyPause    = 100 * time.Millisecond
	busyAttempts = 30
)

// Provider returns the name of the platform whose driver answers, for example
// "sev_guest". Without one the error wraps [ErrNoProvider].
func (r Reports) Provider() (name string, err error) {
	err = r.within(func(dir string) error {
		name, err = r.attribute(dir, "provider")
		return err
	})
	return name, err
}

// Get makes one report. The context is looked at between the steps: what the
// driver has begun it finishes, which takes a second for TDX and at most thirty.
func (r Reports) Get(ctx context.Context, req Request) (rep Report, err error) {
	if len(req.InBlob) == 0 || len(req.InBlob) > MaxInBlob {
		return Report{}, fmt.Errorf("a report takes 1 to %d bytes, got %d", MaxInBlob, len(req.InBlob))
	}
	err = r.within(func(dir string) error {
		rep, err = r.get(ctx, dir, req)
		return err
	})
	if err != nil {
		return Report{}, fmt.Errorf("configfs-tsm: %w", err)
	}
	return rep, nil
}

// within runs f on a report directory of its own.
func (r Reports) within(f func(dir string) error) (err error) {
	unique := make([]byte, 8)
	rand.Read(unique)
	dir := path.Join(ReportDir, "vouchsafe-"+hex.EncodeToString(unique))
	if err := r.Kernel.Mkdir(dir); err != nil {
		// ENXIO: configfs-tsm is there, and no driver has registered.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENXIO) {
			return fmt.Errorf("%w: %w", ErrNoProvider, err)
		}
		return err
	}
	defer func() { err = errors.Join(err, r.Kernel.Remove(dir)) }()
	return f(dir)
}

func (r Reports) get(ctx context.Context, dir string, req Request) (rep Report, err error) {
	provider, err := r.attribute(dir, "provider")
	if err != nil {
		return rep, err
	}
	if provider != req.Provider {
		return rep, fmt.Errorf("the provider is %q, want %q", provider, req.Provider)
	}
	writes, err := r.configure(dir, req)
	if err != nil {
		return rep, err
	}
	if err := r.Kernel.WriteFile(path.Join(dir, "inblob"), req.InBlob); err != nil {
		return rep, err
	}
	writes++
	if rep.Out, err = r.outblob(ctx, dir); err != nil {
		return rep, err
	}
	if rep.Aux, err = r.optional(dir, "auxblob"); err != nil {
		return rep, err
	}
	if req.Service != nil {
		if rep.Manifest, err = r.Kernel.ReadFile(path.Join(dir, "manifestblob"), MaxBlob); err != nil {
			return rep, err
		}
	}
	return rep, r.undisturbed(dir, writes)
}

// configure writes what the report depends on beside its input, and counts the
// writes.
func (r Reports) configure(dir string, req Request) (writes uint64, err error) {
	write := func(name, value string) {
		if err == nil && value != "" {
			err = r.Kernel.WriteFile(path.Join(dir, name), []byte(value))
			writes++
		}
	}
	level, err := r.privLevel(dir, req.PrivLevel)
	if err != nil {
		return 0, err
	}
	write("privlevel", level)
	if s := req.Service; s != nil {
		write("service_provider", s.Provider)
		write("service_guid", s.GUID)
		write("service_manifest_version", s.ManifestVersion)
	}
	return writes, err
}

// privLevel returns what to write, "" for nothing: the kernel's own default is
// zero, also where the guest runs above that and zero will be refused.
func (r Reports) privLevel(dir string, wanted *uint8) (string, error) {
	if wanted != nil {
		return strconv.Itoa(int(*wanted)), nil
	}
	floor, err := r.attribute(dir, "privlevel_floor")
	if errors.Is(err, fs.ErrNotExist) || floor == "0" {
		return "", nil // not SNP, or at VMPL 0
	}
	if err != nil {
		return "", err
	}
	if n, err := strconv.ParseUint(floor, 10, 8); err != nil || n > 3 {
		return "", fmt.Errorf("privlevel_floor is %q", floor)
	}
	return floor, nil
}

func (r Reports) outblob(ctx context.Context, dir string) (out []byte, err error) {
	for range busyAttempts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out, err = r.Kernel.ReadFile(path.Join(dir, "outblob"), MaxBlob)
		if !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.EINTR) {
			break
		}
		if err := r.wait(ctx); err != nil {
			return nil, err
		}
	}
	if err == nil && len(out) == 0 {
		err = errors.New("the kernel returned an empty report")
	}
	return out, err
}

func (r Reports) wait(ctx context.Context) error {
	if r.Wait != nil {
		return r.Wait(ctx, busyPause)
	}
	return pause.For(ctx, busyPause)
}

// optional reads an attribute that not every platform has.
func (r Reports) optional(dir, name string) ([]byte, error) {
	b, err := ReadOptional(r.Kernel, path.Join(dir, name), MaxBlob)
	if len(b) == 0 {
		return nil, err
	}
	return b, err
}

// undisturbed compares how often the directory was written to with how often we
// did. Its name is random, so this finds bugs of others rather than attacks.
func (r Reports) undisturbed(dir string, writes uint64) error {
	text, err := r.attribute(dir, "generation")
	if err != nil {
		return err
	}
	seen, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fmt.Errorf("generation is %q", text)
	}
	if seen != writes {
		return fmt.Errorf("%w: generation %d after %d writes", ErrRaced, seen, writes)
	}
	return nil
}

// attribute reads a line of text without its end.
func (r Reports) attribute(dir, name string) (string, error) {
	b, err := r.Kernel.ReadFile(path.Join(dir, name), maxAttribute)
	return strings.TrimSuffix(string(b), "\n"), err
}
