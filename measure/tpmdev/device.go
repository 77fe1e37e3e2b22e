// Package tpmdev talks to the TPM 2.0 of this guest: quotes, registers, keys and
// NV indices, each as one call with what it needs of sessions and handles. What
// a quote is worth is for packages tpm and azure to say.
//
// The device is opened for each call and closed after it. Behind /dev/tpmrm0 the
// kernel then forgets what the call loaded, whatever became of it, and other
// programs use the TPM beside us.
package tpmdev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// PCRs is how many registers a bank has.
const PCRs = 24

// ErrNoDevice means that this machine has no TPM.
var ErrNoDevice = errors.New("no TPM device")

// DefaultDevices are looked for in this order. The first is behind the kernel's
// resource manager, the other has one user at a time.
var DefaultDevices = []string{"/dev/tpmrm0", "/dev/tpm0"}

// An Opener opens the device for one call.
type Opener func() (transport.TPMCloser, error)

// File opens the first device that exists: a device node, or the socket of a
// TPM in another process. Without any the error wraps [ErrNoDevice] and names
// all.
func File(devices ...string) Opener {
	return func() (transport.TPMCloser, error) {
		for _, d := range devices {
			info, err := os.Stat(d)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			open := linuxtpm.Open
			if info.Mode().Type() == fs.ModeSocket {
				open = linuxudstpm.Open
			}
			t, err := open(d)
			if err != nil {
				return nil, fmt.Errorf("open %s: %w", d, err)
			}
			return t, nil
		}
		return nil, fmt.Errorf("%w: there is no %s", ErrNoDevice, strings.Join(devices, " and no "))
	}
}

// TPM is the TPM of this guest. It is safe for concurrent use: calls take turns.
type TPM struct {
	open Opener
	mu   sync.Mutex
}

// New returns a TPM. Nothing is opened yet.
func New(open Opener) *TPM { return &TPM{open: open} }

// do runs f with the device open. A TPM is slow and cannot be interrupted, so
// the context counts before the call and not in it.
func (t *TPM) do(ctx context.Context, f func(transport.TPM) error) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	dev, err := t.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	return f(dev)
}

// presence is how often a TPM is asked whether it is there. The kernel gives it
// 750 ms, which the TPM of a virtual machine misses where its host is busy, and a
// guest that comes up then should not end over that.
const presence = 3

// Present tells whether there is a TPM 2.0 that answers; the error says what
// there is instead.
func (t *TPM) Present(ctx context.Context) (err error) {
	for range presence {
		if err = t.present(ctx); !errors.Is(err, syscall.ETIME) {
			break
		}
	}
	return err
}

func (t *TPM) present(ctx context.Context) error {
	return t.do(ctx, func(dev transport.TPM) error {
		_, err := tpm2.GetCapability{
			Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTFamilyIndicator), PropertyCount: 1,
		}.Execute(dev)
		if err != nil {
			return fmt.Errorf("ask the TPM for its version: %w", err)
		}
		return nil
	})
}

// ReadPCRs returns all registers of a bank.
func (t *TPM) ReadPCRs(ctx context.Context, bank eventlog.Algorithm) (values [][]byte, err error) {
	err = t.do(ctx, func(dev transport.TPM) error {
		values, err = readPCRs(dev, bank)
		return err
	})
	return values, err
}

func selection(bank eventlog.Algorithm, pcrs ...uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: tpm2.TPMIAlgHash(bank), PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...),
	}}}
}

// readPCRs asks for eight registers at a time, which is what an answer holds.
func readPCRs(dev transport.TPM, bank eventlog.Algorithm) (values [][]byte, err error) {
	const atOnce = 8
	for first := uint(0); first < PCRs; first += atOnce {
		var which []uint
		for i := first; i < first+atOnce; i++ {
			which = append(which, i)
		}
		rsp, err := tpm2.PCRRead{PCRSelectionIn: selection(bank, which...)}.Execute(dev)
		if err != nil {
			return nil, fmt.Errorf("read PCRs %d to %d: %w", first, first+atOnce-1, err)
		}
		if len(rsp.PCRValues.Digests) != atOnce {
			return nil, fmt.Errorf("the TPM returns %d of PCRs %d to %d; it may have no %s bank", len(rsp.PCRValues.Digests), first, first+atOnce-1, bank)
		}
		for i, d := range rsp.PCRValues.Digests {
			if len(d.Buffer) != bank.Size() {
				return nil, fmt.Errorf("PCR %d has %d bytes, want %d", int(first)+i, len(d.Buffer), bank.Size()) //nolint:gosec // small
			}
			values = append(values, d.Buffer)
		}
	}
	return values, nil
}

// Extend extends a register of one bank by a digest. The other banks stay as
// they are: a log of one algorithm could not explain them.
func (t *TPM) Extend(ctx context.Context, pcr int, bank eventlog.Algorithm, digest []byte) error {
	if pcr < 0 || pcr >= PCRs {
		return fmt.Errorf("there is no PCR %d", pcr)
	}
	hash, ok := bank.Hash()
	if !ok || len(digest) != bank.Size() {
		return fmt.Errorf("a digest of %d bytes for a %s bank", len(digest), bank)
	}
	return t.do(ctx, func(dev transport.TPM) error {
		_, err := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)}, //nolint:gosec // below 24
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMIAlgHash(bank), Digest: digest[:hash.Size():hash.Size()]}}},
		}.Execute(dev)
		if errors.Is(err, tpm2.TPMRCLocality) {
			return fmt.Errorf("PCR %d cannot be extended by the operating system: %w", pcr, err)
		}
		if err != nil {
			return fmt.Errorf("extend PCR %d: %w", pcr, err)
		}
		return nil
	})
}
