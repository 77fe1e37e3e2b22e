package tpm

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/simdir"
)

// launchFile is launch.json: what the simulated TPM knows about its guest.
type launchFile struct {
	Platform string `json:"platform"`
	InitData string `json:"init_data"` // the digest in PCR 8, hex; may be empty
}

// CreateGuest boots a simulated guest: it measures the launch, and puts a TPM
// of its own, with a fresh AK that the manufacturer of vendorDir certifies,
// into guestDir, which must not hold a guest yet. Besides, it writes ak.pem,
// the AK as a configuration enrols it. Whoever can read the directory can make
// evidence of this guest; the key file has mode 0600.
func CreateGuest(vendorDir, guestDir string, l Launch) error {
	log, err := l.Log()
	if err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	v, err := openVendor(vendorDir)
	if err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	ak, err := rsa.GenerateKey(rand.Reader, minRSABits)
	if err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	cert, err := v.certify(ak.Public(), oidAKCertificate, time.Now())
	if err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	key, err := simdir.Key(fileAKKey, ak)
	if err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	launch, err := simdir.JSON(fileLaunch, launchFile{Platform: string(measure.TPM), InitData: hex.EncodeToString(l.InitDataDigest)})
	if err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	pemFile := func(name string, b *pem.Block) simdir.File {
		return simdir.File{Name: name, Data: pem.EncodeToMemory(b), Mode: simdir.Public}
	}
	enrol := &pem.Block{Type: pemPublicKey, Headers: map[string]string{headerSimulated: "yes"}, Bytes: cert.RawSubjectPublicKeyInfo}
	if err := simdir.Write(guestDir, key, pemFile(fileChain, &pem.Block{Type: pemCertificate, Bytes: cert.Raw}), pemFile(fileAK, enrol),
		simdir.File{Name: fileLog, Data: log.Marshal(), Mode: simdir.Public}, launch); err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	return nil
}

// Simulator stands in for the TPM of one simulated guest. Its quotes are real
// in every byte but for who vouches for the key. It is safe for concurrent use.
// What is extended after it was opened is forgotten when it is closed.
type Simulator struct {
	device *Device
	public []byte // of the AK, SubjectPublicKeyInfo
	chain  [][]byte
	log    []byte
}

// OpenSimulator opens a directory that [CreateGuest] made.
func OpenSimulator(guestDir string) (*Simulator, error) {
	s, err := openSimulator(guestDir)
	if err != nil {
		return nil, fmt.Errorf("open simulated guest: %w", err)
	}
	return s, nil
}

func openSimulator(dir string) (*Simulator, error) {
	key, err := simdir.ReadKey[*rsa.PrivateKey](dir, fileAKKey)
	if err != nil {
		return nil, err
	}
	s := new(Simulator)
	if s.device, err = NewDevice(key, nil); err != nil {
		return nil, err
	}
	if s.public, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return nil, err
	}
	chain, err := os.ReadFile(filepath.Join(dir, fileChain))
	if err != nil {
		return nil, err
	}
	blocks, err := pemBlocks(chain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileChain, err)
	}
	for _, b := range blocks {
		s.chain = append(s.chain, b.Bytes)
	}
	if s.log, err = os.ReadFile(filepath.Join(dir, fileLog)); err != nil {
		return nil, err
	}
	return s, s.boot(dir)
}

// boot extends the PCRs as the guest's boot did.
func (s *Simulator) boot(dir string) error {
	log, err := eventlog.Parse(s.log)
	if err != nil {
		return err
	}
	if err := s.device.ExtendLog(log); err != nil {
		return err
	}
	var l launchFile
	if err := simdir.ReadJSON(dir, fileLaunch, &l); err != nil {
		return err
	}
	if l.Platform != string(measure.TPM) {
		return fmt.Errorf("a guest of platform %q", l.Platform)
	}
	digest, err := hex.DecodeString(l.InitData)
	if err != nil {
		return errors.New("init_data is not hex")
	}
	if len(digest) == 0 {
		return nil
	}
	return s.device.Extend(Bank, InitDataPCR, digest)
}

// Platform returns [measure.TPM].
func (s *Simulator) Platform() measure.Platform { return measure.TPM }

// Device returns the TPM itself, for who extends its PCRs at run time.
func (s *Simulator) Device() *Device { return s.device }

// Evidence returns a quote over the report data, cut to 32 bytes as the
// field's attester does, in the wire form of kbs-protocol 16.6, with the
// certificate of the AK and the log of the boot.
func (s *Simulator) Evidence(ctx context.Context, data measure.ReportData) (measure.Evidence, error) {
	if err := ctx.Err(); err != nil {
		return measure.Evidence{}, err
	}
	message, signature, values, err := s.device.Quote(data[:nonceSize], AllPCRs(Bank))
	if err != nil {
		return measure.Evidence{}, err
	}
	e := Evidence{Message: message, Signature: signature, PCRs: values, AKPublic: s.public, AKCertificates: s.chain, EventLog: s.log}
	return e.Wire()
}
