package snp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

// launchFile is launch.json: what the simulated secure processor knows about
// its one guest. Byte strings are hex.
type launchFile struct {
	Platform    string     `json:"platform"`
	Generation  Generation `json:"generation"`
	Measurement string     `json:"measurement"`
	HostData    string     `json:"host_data"`
	Policy      uint64     `json:"policy"`
	ReportID    string     `json:"report_id"`
	ChipID      string     `json:"chip_id"`
	TCB         SVNs       `json:"tcb"`
}

// CreateGuest launches a simulated guest: it measures the launch, and puts a
// chip of its own with a fresh VCEK under the vendor of vendorDir into
// guestDir, which must not hold a guest yet. Whoever can read the directory
// can make evidence of this guest; the key file has mode 0600.
func CreateGuest(vendorDir, guestDir string, l Launch) error {
	measurement, err := Predict(l)
	if err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	v, err := openVendor(vendorDir)
	if err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	chip := make([]byte, 64)
	hwid := chip
	if v.generation == Turin {
		hwid = chip[:8] // the rest of the field is zero
	}
	rand.Read(hwid)
	_, _, svns := v.generation.processor()
	key, cert, err := v.issueVCEK(hwid, svns, time.Now())
	if err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	id := make([]byte, 32)
	rand.Read(id)
	if l.Policy == 0 {
		l.Policy = DefaultPolicy
	}
	launch, err := json.MarshalIndent(launchFile{
		Platform: string(measure.SNP), Generation: v.generation,
		Measurement: hex.EncodeToString(measurement[:]),
		HostData:    hex.EncodeToString(initdata.Fit(l.InitDataDigest, initdata.SNPHostData)),
		Policy:      l.Policy, ReportID: hex.EncodeToString(id), ChipID: hex.EncodeToString(chip), TCB: svns,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	var chain []byte
	for _, c := range []*x509.Certificate{cert, v.ask, v.ark} {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})...)
	}
	secret, err := marshalKey(key)
	if err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	if err := writeNew(guestDir, file{fileVCEKKey, secret, 0o600}, file{fileChain, chain, 0o644},
		file{fileLaunch, append(launch, '\n'), 0o644}); err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	return nil
}

// Simulator stands in for the secure processor of one simulated guest. Its
// reports are real in every byte but for the vendor above them. It is safe for
// concurrent use.
type Simulator struct {
	report Report // all that stays the same from one report to the next
	key    *ecdsa.PrivateKey
	chain  []Certificate
}

// OpenSimulator opens a directory that [CreateGuest] made.
func OpenSimulator(guestDir string) (*Simulator, error) {
	s := new(Simulator)
	key, err := readKey(filepath.Join(guestDir, fileVCEKKey))
	if err != nil {
		return nil, fmt.Errorf("open simulated guest: %w", err)
	}
	var ok bool
	if s.key, ok = key.(*ecdsa.PrivateKey); !ok {
		return nil, fmt.Errorf("open simulated guest: %s is a %T", fileVCEKKey, key)
	}
	rest, err := os.ReadFile(filepath.Join(guestDir, fileChain))
	if err != nil {
		return nil, fmt.Errorf("open simulated guest: %w", err)
	}
	for _, kind := range []CertType{CertVCEK, CertASK, CertARK} {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("open simulated guest: %s has no %s", fileChain, kind)
		}
		s.chain = append(s.chain, Certificate{Type: kind, Data: block.Bytes})
	}
	if err := s.readLaunch(filepath.Join(guestDir, fileLaunch)); err != nil {
		return nil, fmt.Errorf("open simulated guest: %s: %w", fileLaunch, err)
	}
	return s, nil
}

func (s *Simulator) readLaunch(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var l launchFile
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the object")
	}
	if _, err := ParseGeneration(string(l.Generation)); err != nil {
		return err
	}
	fms, _, _ := l.Generation.processor()
	tcb := l.TCB.join(l.Generation == Turin)
	firmware := FirmwareVersion{Major: 1, Minor: 55, Build: 40}
	s.report = Report{
		Version: 3, Policy: l.Policy, SignatureAlgorithm: 1, PlatformInfo: 0x25, // SMT, ECC, alias check done
		CPUFamily: fms[0], CPUModel: fms[1], CPUStepping: fms[2],
		CurrentTCB: tcb, ReportedTCB: tcb, CommittedTCB: tcb, LaunchTCB: tcb,
		Current: firmware, Committed: firmware,
		ReportIDMA: [32]byte(bytes.Repeat([]byte{0xff}, 32)), // no migration agent
	}
	if l.Platform != string(measure.SNP) {
		return fmt.Errorf("a guest of platform %q", l.Platform)
	}
	return errors.Join(
		hexField("measurement", s.report.Measurement[:], l.Measurement),
		hexField("host_data", s.report.HostData[:], l.HostData),
		hexField("report_id", s.report.ReportID[:], l.ReportID),
		hexField("chip_id", s.report.ChipID[:], l.ChipID),
	)
}

func hexField(name string, field []byte, text string) error {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(field) {
		return fmt.Errorf("%s is not the hex of %d bytes", name, len(field))
	}
	copy(field, b)
	return nil
}

// Platform returns [measure.SNP].
func (s *Simulator) Platform() measure.Platform { return measure.SNP }

// Evidence returns a report over the report data, signed by the guest's VCEK,
// with the chain [VCEK, ASK, ARK], in the wire form of kbs-protocol 16.2.
func (s *Simulator) Evidence(ctx context.Context, data measure.ReportData) (measure.Evidence, error) {
	if err := ctx.Err(); err != nil {
		return measure.Evidence{}, err
	}
	r, err := s.sign(data)
	if err != nil {
		return measure.Evidence{}, err
	}
	e := Evidence{Report: r, Certificates: slices.Clone(s.chain)}
	return e.Wire()
}

// HostData returns HOST_DATA as a guest on hardware learns it: from a report.
func (s *Simulator) HostData() ([32]byte, error) {
	r, err := s.sign(measure.ReportData{})
	if err != nil {
		return [32]byte{}, err
	}
	return r.HostData, nil
}

func (s *Simulator) sign(data measure.ReportData) (*Report, error) {
	r := s.report
	r.ReportData = data
	return &r, r.signWith(s.key)
}

// signWith signs the report as the secure processor does.
func (r *Report) signWith(key *ecdsa.PrivateKey) error {
	sum := sha512.Sum384(r.Marshal()[:SignedSize])
	x, y, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return fmt.Errorf("sign SNP report: %w", err)
	}
	r.SignatureR, r.SignatureS = fromBig(x), fromBig(y)
	return nil
}

func fromBig(n *big.Int) (b [72]byte) {
	n.FillBytes(b[:])
	slices.Reverse(b[:])
	return b
}
