package snp

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/simdir"
)

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
	var l launchFile
	if err := simdir.ReadJSON(guestDir, fileLaunch, &l); err != nil {
		return nil, fmt.Errorf("open simulated guest: %w", err)
	}
	if err := s.readLaunch(l); err != nil {
		return nil, fmt.Errorf("open simulated guest: %s: %w", fileLaunch, err)
	}
	var err error
	if s.key, err = simdir.ReadECDSA(guestDir, fileLeafKey(l.SigningKey)); err != nil {
		return nil, fmt.Errorf("open simulated guest: %w", err)
	}
	rest, err := os.ReadFile(filepath.Join(guestDir, fileChain))
	if err != nil {
		return nil, fmt.Errorf("open simulated guest: %w", err)
	}
	leaf, _ := leafType(l.SigningKey) // readLaunch refuses other kinds
	for _, kind := range []CertType{leaf, CertASK, CertARK} {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("open simulated guest: %s has no %s", fileChain, kind)
		}
		s.chain = append(s.chain, Certificate{Type: kind, Data: block.Bytes})
	}
	return s, nil
}

func (s *Simulator) readLaunch(l launchFile) error {
	if l.Platform != string(measure.SNP) {
		return fmt.Errorf("a guest of platform %q", l.Platform)
	}
	if _, err := ParseGeneration(string(l.Generation)); err != nil {
		return err
	}
	if _, ok := leafType(l.SigningKey); !ok {
		return fmt.Errorf("signing_key %d is not known", l.SigningKey)
	}
	if l.ReportVersion == 0 {
		l.ReportVersion = 3
	}
	tcb := l.TCB.TCB(l.Generation)
	firmware := FirmwareVersion{Major: 1, Minor: 55, Build: 40}
	s.report = Report{
		Version: l.ReportVersion, Policy: l.Policy, SignatureAlgorithm: 1, PlatformInfo: 0x25, // SMT, ECC, alias check done
		KeyInfo:    uint32(l.SigningKey) << 2,
		CurrentTCB: tcb, ReportedTCB: tcb, CommittedTCB: tcb, LaunchTCB: tcb,
		Current: firmware, Committed: firmware,
		ReportIDMA: noAgent,
	}
	if l.ReportVersion >= 3 {
		fms, _, _ := l.Generation.processor()
		s.report.CPUFamily, s.report.CPUModel, s.report.CPUStepping = fms[0], fms[1], fms[2]
	}
	if l.AuthorKeyDigest != "" {
		s.report.KeyInfo |= 1
	}
	return errors.Join(
		hexField("measurement", s.report.Measurement[:], l.Measurement),
		hexField("host_data", s.report.HostData[:], l.HostData),
		hexField("report_id", s.report.ReportID[:], l.ReportID),
		hexField("chip_id", s.report.ChipID[:], l.ChipID),
		optionalHex("id_key_digest", s.report.IDKeyDigest[:], l.IDKeyDigest),
		optionalHex("author_key_digest", s.report.AuthorKeyDigest[:], l.AuthorKeyDigest),
	)
}

func optionalHex(name string, field []byte, text string) error {
	if text == "" {
		return nil
	}
	return hexField(name, field, text)
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

// BindInitData compares HOST_DATA with the digest of an init-data document, as
// [Attester.BindInitData] does on hardware.
func (s *Simulator) BindInitData(_ context.Context, digest []byte) error {
	return initdata.CompareField(s.report.HostData[:], digest)
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
