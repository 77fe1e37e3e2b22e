package sgx

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/simdir"
)

const fileLaunch = "launch.json"

// Launch is what a simulated enclave is made from.
type Launch struct {
	// Image is what runs in the enclave. The simulated MRENCLAVE is its SHA-256;
	// on hardware it is a digest of the pages and of how they were added.
	Image          []byte
	Signer         [32]byte // MRSIGNER
	ProdID, SVN    uint16
	InitDataDigest []byte // goes into CONFIGID, filled up to 64 bytes; may be empty
	Debug          bool   // let the host look into the enclave
	// Chip makes a platform that is not as the vendor wants it.
	Chip dcap.ChipOptions
}

// Predict returns the MRENCLAVE of a simulated enclave.
func Predict(l Launch) ([32]byte, error) {
	if len(l.Image) == 0 {
		return [32]byte{}, errors.New("the image is empty")
	}
	return sha256.Sum256(l.Image), nil
}

// launchFile is launch.json: the enclave's report, but for the report data, in
// hex.
type launchFile struct {
	Platform string `json:"platform"`
	Report   string `json:"report"`
}

// CreateGuest makes a simulated enclave on a chip of its own under the vendor
// of vendorDir into guestDir, which must not hold a guest yet. Whoever can
// read the directory can make evidence of this enclave; the key file has mode
// 0600.
func CreateGuest(vendorDir, guestDir string, l Launch) error {
	if err := createGuest(vendorDir, guestDir, l); err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	return nil
}

func createGuest(vendorDir, guestDir string, l Launch) error {
	enclave, err := Predict(l)
	if err != nil {
		return err
	}
	v, err := dcap.OpenVendor(vendorDir)
	if err != nil {
		return err
	}
	chip, err := v.NewChip(dcap.SGX, time.Now(), l.Chip)
	if err != nil {
		return err
	}
	r := dcap.EnclaveReport{
		Attributes: dcap.EnclaveAttributes{Flags: dcap.FlagInit | 1<<2, XFRM: 0xe7}, // 64 bits
		MREnclave:  enclave, MRSigner: l.Signer, ISVProdID: l.ProdID, ISVSVN: l.SVN,
		ConfigID: [64]byte(initdata.Fit(l.InitDataDigest, 64)),
	}
	if l.Debug {
		r.Attributes.Flags |= dcap.FlagDebug
	}
	launch, err := simdir.JSON(fileLaunch, launchFile{Platform: string(measure.SGX), Report: hex.EncodeToString(r.Marshal())})
	if err != nil {
		return err
	}
	if err := chip.Save(guestDir); err != nil {
		return err
	}
	return simdir.Write(guestDir, launch)
}

// Simulator stands in for the processor and the quoting enclave of one
// simulated enclave. It is safe for concurrent use.
type Simulator struct {
	chip   *dcap.Chip
	report dcap.EnclaveReport
}

// OpenSimulator opens a directory that [CreateGuest] made.
func OpenSimulator(guestDir string) (*Simulator, error) {
	s, err := openSimulator(guestDir)
	if err != nil {
		return nil, fmt.Errorf("open simulated guest: %w", err)
	}
	return s, nil
}

func openSimulator(guestDir string) (*Simulator, error) {
	var f launchFile
	if err := simdir.ReadJSON(guestDir, fileLaunch, &f); err != nil {
		return nil, err
	}
	if f.Platform != string(measure.SGX) {
		return nil, fmt.Errorf("%s: a guest of platform %q", fileLaunch, f.Platform)
	}
	raw, err := hex.DecodeString(f.Report)
	if err != nil {
		return nil, fmt.Errorf("%s: report: not hex", fileLaunch)
	}
	r, err := dcap.ParseEnclaveReport(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileLaunch, err)
	}
	chip, err := dcap.OpenChip(dcap.SGX, guestDir)
	if err != nil {
		return nil, err
	}
	return &Simulator{chip: chip, report: *r}, nil
}

// Platform returns [measure.SGX].
func (s *Simulator) Platform() measure.Platform { return measure.SGX }

// Evidence returns a quote over the report data, in the wire form of
// kbs-protocol 16.4.
func (s *Simulator) Evidence(ctx context.Context, data measure.ReportData) (measure.Evidence, error) {
	if err := ctx.Err(); err != nil {
		return measure.Evidence{}, err
	}
	r := s.report
	r.ReportData = data
	q, err := s.chip.Quote(3, dcap.BodySGX, r.Marshal())
	if err != nil {
		return measure.Evidence{}, err
	}
	e := Evidence{Quote: q.Marshal()}
	return e.Wire()
}
