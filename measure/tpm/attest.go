package tpm

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/ima"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
)

// DefaultAK is the persistent handle at which the field's attester expects the
// attestation key (guest-protocol 4.12).
const DefaultAK = 0x81010002

// FirmwareLog is where Linux shows what the firmware measured, in securityfs.
const FirmwareLog = "sys/kernel/security/tpm0/binary_bios_measurements"

// A Chip is the TPM of this guest: package tpmdev has the one behind a device
// node. Handles, keys and structures are those of TPM 2.0.
type Chip interface {
	// AttestationKey returns the restricted signing key of a persistent handle,
	// and makes one there if create is set and there is none.
	AttestationKey(ctx context.Context, handle uint32, create bool) (*rsa.PublicKey, error)
	// Quote returns a TPMS_ATTEST over all registers of a bank, its
	// TPMT_SIGNATURE, and the values of the registers at that moment.
	Quote(ctx context.Context, handle uint32, bank eventlog.Algorithm, nonce []byte) (message, signature []byte, values [][]byte, err error)
	ReadPCRs(ctx context.Context, bank eventlog.Algorithm) ([][]byte, error)
	Extend(ctx context.Context, pcr int, bank eventlog.Algorithm, digest []byte) error
}

// AttesterConfig says how to ask the TPM of this machine.
type AttesterConfig struct {
	Chip Chip
	// AK is the persistent handle of the attestation key; 0 is [DefaultAK]. A
	// key is made where there is none.
	AK uint32
	// AKCertificates vouch for the key, in DER, its own first; usually none.
	AKCertificates [][]byte
	// Kernel has the firmware's event log; nil sends none.
	Kernel tsm.Kernel
	// RuntimeLog is sent with the firmware's log; nil for none.
	RuntimeLog *aael.Log
}

// Attester obtains quotes of the TPM of this machine. By itself a TPM says
// nothing about memory encryption: only what it vouches for booted here. It is
// safe for concurrent use.
type Attester struct{ cfg AttesterConfig }

// NewAttester returns an attester. It asks for nothing yet.
func NewAttester(cfg AttesterConfig) (*Attester, error) {
	if cfg.Chip == nil {
		return nil, errors.New("tpm: no TPM to ask for quotes")
	}
	if cfg.AK == 0 {
		cfg.AK = DefaultAK
	}
	return &Attester{cfg}, nil
}

// Platform returns [measure.TPM].
func (a *Attester) Platform() measure.Platform { return measure.TPM }

// Evidence returns a fresh quote over the first 32 bytes of the report data, as
// the field's attester does (kbs-protocol 3.5), with the key that signed it and
// the event log. Nothing is extended into registers of the log meanwhile.
func (a *Attester) Evidence(ctx context.Context, data measure.ReportData) (measure.Evidence, error) {
	key, err := a.cfg.Chip.AttestationKey(ctx, a.cfg.AK, true)
	if err != nil {
		return measure.Evidence{}, fmt.Errorf("obtain TPM quote: %w", err)
	}
	e := &Evidence{AKCertificates: a.cfg.AKCertificates}
	if e.AKPublic, err = x509.MarshalPKIXPublicKey(key); err != nil {
		return measure.Evidence{}, err
	}
	if err := Obtain(ctx, a.cfg.Chip, a.cfg.AK, data[:nonceSize], Logs{a.cfg.Kernel, a.cfg.RuntimeLog}, e); err != nil {
		return measure.Evidence{}, fmt.Errorf("obtain TPM quote: %w", err)
	}
	if e.IMAList, err = imaList(a.cfg.Kernel); err != nil {
		return measure.Evidence{}, fmt.Errorf("read what the kernel measured: %w", err)
	}
	return e.Wire()
}

// imaList reads the list of what the kernel has measured of files. It is read after
// the quote, so that nothing which the quote covers is missing. One that has grown
// too long to be sent stays away: PCR 10 is then a value without a word about it,
// which policies that ask for files refuse.
func imaList(k tsm.Kernel) ([]byte, error) {
	if k == nil {
		return nil, nil
	}
	raw, err := tsm.ReadOptional(k, ima.File, ima.MaxSize)
	if errors.Is(err, tsm.ErrTooLarge) {
		return nil, nil
	}
	if len(raw) == 0 {
		return nil, err
	}
	return raw, err
}

// Logs are the event logs that explain a quote.
type Logs struct {
	Kernel  tsm.Kernel // has the firmware's; nil for none
	Runtime *aael.Log  // nil for none
}

// Obtain fills e with a quote of all registers of [Bank] over the nonce, and
// with the event log of the same moment.
func Obtain(ctx context.Context, chip Chip, ak uint32, nonce []byte, logs Logs, e *Evidence) error {
	var firmware []byte
	var err error
	if logs.Kernel != nil {
		firmware, err = tsm.ReadOptional(logs.Kernel, FirmwareLog, eventlog.MaxSize)
	}
	if err != nil {
		return fmt.Errorf("read the firmware's event log: %w", err)
	}
	quote := func(records []byte) (err error) {
		if e.EventLog, err = eventlog.Combine(firmware, records, Bank); err != nil {
			return err
		}
		var signature []byte
		if e.Message, signature, e.PCRs, err = chip.Quote(ctx, ak, Bank, nonce); err != nil {
			return err
		}
		if e.Quote, err = ParseQuote(e.Message); err != nil {
			return err
		}
		e.Signature, err = ParseSignature(signature)
		return err
	}
	if logs.Runtime == nil {
		return quote(nil)
	}
	return logs.Runtime.Hold(quote)
}

// BindInitData extends the digest of the init-data document into PCR 8, once:
// after a restart of the agent it is there already. nil, for no document, does
// nothing; a verifier sees the register (guest-protocol 5.3). A register that
// holds something else wraps [initdata.ErrField].
func (a *Attester) BindInitData(ctx context.Context, digest []byte) error {
	return BindInitData(ctx, a.cfg.Chip, digest)
}

// BindInitData is the same for any platform that has a TPM for it.
func BindInitData(ctx context.Context, chip Chip, digest []byte) error {
	if digest == nil {
		return nil
	}
	if len(digest) != Bank.Size() {
		return fmt.Errorf("an init-data digest of %d bytes does not fit into a PCR: the document must use sha256", len(digest))
	}
	values, err := chip.ReadPCRs(ctx, Bank)
	if err != nil {
		return err
	}
	switch value := values[InitDataPCR]; {
	case bytes.Equal(value, InitDataValue(digest)):
		return nil
	case bytes.Equal(value, make([]byte, Bank.Size())):
		return chip.Extend(ctx, InitDataPCR, Bank, digest)
	default:
		return fmt.Errorf("%w: PCR %d holds %x already", initdata.ErrField, InitDataPCR, value)
	}
}
