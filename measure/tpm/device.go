package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// Device is as much of a TPM as evidence needs, in software: PCRs, an
// attestation key that signs quotes, and a clock. Simulators and tests use it;
// it protects nothing. It is safe for concurrent use.
type Device struct {
	mu     sync.Mutex
	ak     crypto.Signer
	signer []byte
	scheme Scheme
	pcrs   map[eventlog.Algorithm][][]byte
	start  time.Time
	now    func() time.Time
}

// deviceFirmware is the version that quotes of a Device name.
const deviceFirmware = 0x5653_0001

// NewDevice returns a TPM after a reset, with the banks SHA-256 and SHA-384.
// The key is RSA or ECDSA; RSA signs with PKCS #1 v1.5, as the field's
// attesters ask for. A nil clock means time.Now.
func NewDevice(ak crypto.Signer, now func() time.Time) (*Device, error) {
	d := &Device{ak: ak, now: now, pcrs: map[eventlog.Algorithm][][]byte{}}
	switch ak.Public().(type) {
	case *rsa.PublicKey:
		d.scheme = RSASSA
	case *ecdsa.PublicKey:
		d.scheme = ECDSA
	default:
		return nil, fmt.Errorf("a TPM with a key of type %T", ak.Public())
	}
	der, err := x509.MarshalPKIXPublicKey(ak.Public())
	if err != nil {
		return nil, err
	}
	// A TPM names a key by its public area; this one has none but the key.
	d.signer = append([]byte{0, byte(eventlog.SHA256)}, eventlog.SHA256.Sum(der)...)
	if d.now == nil {
		d.now = time.Now
	}
	d.start = d.now()
	for _, bank := range []eventlog.Algorithm{eventlog.SHA256, eventlog.SHA384} {
		for i := range PCRs {
			d.pcrs[bank] = append(d.pcrs[bank], eventlog.Initial(i, bank))
		}
	}
	return d, nil
}

// UsePSS makes an RSA key sign with PSS from now on.
func (d *Device) UsePSS() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scheme = RSAPSS
}

// Extend extends a PCR of one bank by a digest of the bank's size.
func (d *Device) Extend(bank eventlog.Algorithm, pcr int, digest []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	values := d.pcrs[bank]
	if pcr < 0 || pcr >= len(values) || len(digest) != bank.Size() {
		return fmt.Errorf("a TPM cannot extend PCR %d of bank %s by %d bytes", pcr, bank, len(digest))
	}
	values[pcr] = eventlog.Extend(bank, values[pcr], digest)
	return nil
}

// ExtendLog extends every event of a log into both banks, as firmware does.
func (d *Device) ExtendLog(l *eventlog.Log) error {
	for _, e := range l.Events {
		if e.Type == eventlog.NoAction {
			continue
		}
		for bank := range d.pcrs {
			if err := d.Extend(bank, e.Index, e.Digests[bank]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Values returns the PCRs of a bank.
func (d *Device) Values(bank eventlog.Algorithm) [][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([][]byte{}, d.pcrs[bank]...)
}

// Quote signs a quote over the extra data and the selected PCRs, and returns
// the values of those, in the order in which they were digested.
func (d *Device) Quote(extra []byte, selection ...Selection) (message []byte, s *Signature, values [][]byte, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(extra) > 64 {
		return nil, nil, nil, fmt.Errorf("a quote is bound to at most 64 bytes, got %d", len(extra))
	}
	for _, s := range selection {
		for i, v := range d.pcrs[s.Bank] {
			if i/8 < len(s.Bitmap) && s.Bitmap[i/8]>>(i%8)&1 == 1 {
				values = append(values, v)
			}
		}
	}
	q := &Quote{
		Signer: d.signer, ExtraData: extra, Firmware: deviceFirmware, Selection: selection,
		Clock:  Clock{Milliseconds: uint64(d.now().Sub(d.start).Milliseconds()), Resets: 1, Safe: true}, //nolint:gosec // not negative
		Digest: eventlog.SHA256.Sum(values...),
	}
	message = q.Marshal()
	s, err = d.sign(message)
	return message, s, values, err
}

func (d *Device) sign(message []byte) (*Signature, error) {
	s := &Signature{Scheme: d.scheme, Hash: eventlog.SHA256}
	var options crypto.SignerOpts = crypto.SHA256
	if d.scheme == RSAPSS {
		options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	}
	raw, err := d.ak.Sign(rand.Reader, s.Hash.Sum(message), options)
	if err != nil {
		return nil, fmt.Errorf("sign quote: %w", err)
	}
	if d.scheme != ECDSA {
		s.RSA = raw
		return s, nil
	}
	var parts struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(raw, &parts); err != nil || len(rest) != 0 {
		return nil, errors.New("sign quote: the key returned no ECDSA signature")
	}
	s.R, s.S = parts.R.Bytes(), parts.S.Bytes()
	return s, nil
}
