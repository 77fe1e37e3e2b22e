package azure

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/simdir"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

// Files of a simulated guest.
const (
	dirHardware = "hardware" // the paravisor's, a guest of snp or tdx
	fileAKKey   = "ak.key"
	fileLog     = "eventlog.bin"
	fileLaunch  = "launch.json" // comes last
)

// paravisor is what the simulated hardware measures in place of the guest.
var paravisor = []byte("vouchsafe simulated paravisor")

// launchFile is launch.json.
type launchFile struct {
	Platform measure.Platform `json:"platform"`
	VM       string           `json:"vm_id"`
	InitData string           `json:"init_data"` // the digest in PCR 8, hex; may be empty
}

// CreateGuest boots a simulated guest of one of Azure's platforms: a paravisor
// on a chip of its own, under the vendor of vendorDir (one of package snp for
// az-snp-vtpm, of package dcap for az-tdx-vtpm), and a vTPM in it with a fresh
// AK, whose PCRs are those of the guest's launch ([tpm.Predict]). The guest
// goes into guestDir, which must not hold one yet. Whoever can read the
// directory can make evidence of this guest; the key files have mode 0600.
func CreateGuest(p measure.Platform, vendorDir, guestDir string, l tpm.Launch) error {
	if err := createGuest(p, vendorDir, guestDir, l); err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	return nil
}

func createGuest(p measure.Platform, vendorDir, guestDir string, l tpm.Launch) error {
	log, err := l.Log()
	if err != nil {
		return err
	}
	ak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	key, err := simdir.Key(fileAKKey, ak)
	if err != nil {
		return err
	}
	id := make([]byte, 16)
	rand.Read(id)
	launch, err := simdir.JSON(fileLaunch, launchFile{
		Platform: p, InitData: hex.EncodeToString(l.InitDataDigest),
		VM: strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])),
	})
	if err != nil {
		return err
	}
	hardware := filepath.Join(guestDir, dirHardware)
	switch p {
	case measure.AzSNPvTPM:
		err = snp.CreateGuest(vendorDir, hardware, snp.Launch{Image: paravisor})
	case measure.AzTDXvTPM:
		err = tdx.CreateGuest(vendorDir, hardware, tdx.Launch{Image: paravisor})
	default:
		err = fmt.Errorf("%s is not a platform of Azure", p)
	}
	if err != nil {
		return err
	}
	return simdir.Write(guestDir, key, simdir.File{Name: fileLog, Data: log.Marshal(), Mode: simdir.Public}, launch)
}

// Simulator stands in for the paravisor, its vTPM and the hardware below of
// one simulated guest. Its evidence is real in every byte but for the vendor
// above the hardware. It is safe for concurrent use.
type Simulator struct {
	platform measure.Platform
	vm       string
	hardware measure.Attester
	ak       *rsa.PrivateKey
	device   *tpm.Device
	log      []byte
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
	var l launchFile
	if err := simdir.ReadJSON(dir, fileLaunch, &l); err != nil {
		return nil, err
	}
	s := &Simulator{platform: l.Platform, vm: l.VM}
	var err error
	switch hardware := filepath.Join(dir, dirHardware); l.Platform {
	case measure.AzSNPvTPM:
		s.hardware, err = snp.OpenSimulator(hardware)
	case measure.AzTDXvTPM:
		s.hardware, err = tdx.OpenSimulator(hardware)
	default:
		err = fmt.Errorf("%s: a guest of platform %q", fileLaunch, l.Platform)
	}
	if err != nil {
		return nil, err
	}
	if s.ak, err = simdir.ReadKey[*rsa.PrivateKey](dir, fileAKKey); err != nil {
		return nil, err
	}
	if s.device, err = tpm.NewDevice(s.ak, nil); err != nil {
		return nil, err
	}
	if s.log, err = simdir.Read(dir, fileLog); err != nil {
		return nil, err
	}
	digest, err := hex.DecodeString(l.InitData)
	if err != nil {
		return nil, errors.New("init_data is not hex")
	}
	return s, s.boot(digest)
}

// boot extends the PCRs as the guest's boot did, and its agent.
func (s *Simulator) boot(initData []byte) error {
	log, err := eventlog.Parse(s.log)
	if err != nil {
		return err
	}
	if err := s.device.ExtendLog(log); err != nil || len(initData) == 0 {
		return err
	}
	return s.device.Extend(tpm.Bank, tpm.InitDataPCR, initData)
}

// Platform returns [measure.AzSNPvTPM] or [measure.AzTDXvTPM].
func (s *Simulator) Platform() measure.Platform { return s.platform }

// Device returns the vTPM, for who extends its PCRs at run time.
func (s *Simulator) Device() *tpm.Device { return s.device }

// Evidence returns evidence over all 64 bytes of the report data. Verifiers
// want the digest alone: see [Simulator.EvidenceOver].
func (s *Simulator) Evidence(ctx context.Context, data measure.ReportData) (measure.Evidence, error) {
	return s.EvidenceOver(ctx, data[:])
}

// EvidenceOver returns a quote over the digest, in the newest wire form of
// kbs-protocol 16.5. The hardware report is as new as the quote, and bound to
// the same digest through the runtime data.
func (s *Simulator) EvidenceOver(ctx context.Context, digest []byte) (measure.Evidence, error) {
	data, err := measure.NewReportData(digest)
	if err != nil {
		return measure.Evidence{}, err
	}
	e := &Evidence{Platform: s.platform, Version: LatestVersion, EventLog: s.log}
	if err := s.report(ctx, e, s.runtimeData(data)); err != nil {
		return measure.Evidence{}, err
	}
	if err := s.quote(e, digest, tpm.AllPCRs(tpm.Bank)); err != nil {
		return measure.Evidence{}, err
	}
	return e.Wire()
}

// runtimeData makes the JSON that names the AK.
func (s *Simulator) runtimeData(user measure.ReportData) []byte {
	url := base64.RawURLEncoding.EncodeToString
	ak := jwk{
		ID: attestationKey, Operations: []string{"sign"}, Type: "RSA",
		E: url(big.NewInt(int64(s.ak.E)).Bytes()), N: url(s.ak.N.Bytes()),
	}
	out, err := json.Marshal(struct {
		Keys          []jwk          `json:"keys"`
		Configuration map[string]any `json:"vm-configuration"`
		UserData      string         `json:"user-data"`
	}{
		[]jwk{ak}, map[string]any{"console-enabled": true, "secure-boot": false, "tpm-enabled": true, "vmUniqueId": s.vm},
		strings.ToUpper(hex.EncodeToString(user[:])),
	})
	if err != nil {
		panic(err) // strings and bools
	}
	return out
}

// report lets the hardware vouch for runtime data.
func (s *Simulator) report(ctx context.Context, e *Evidence, runtime []byte) error {
	e.HCL = &HCLReport{Version: 2, RequestType: 2, Hash: eventlog.SHA256, RuntimeData: runtime}
	binding, err := measure.NewReportData(e.HCL.Binding())
	if err != nil {
		return err
	}
	return s.reportOver(ctx, e, binding)
}

func (s *Simulator) reportOver(ctx context.Context, e *Evidence, binding measure.ReportData) error {
	ev, err := s.hardware.Evidence(ctx, binding)
	if err != nil {
		return err
	}
	if s.platform == measure.AzTDXvTPM {
		q, err := tdx.ParseEvidence(ev)
		if err != nil {
			return err
		}
		e.HCL.Type, e.TDQuote = ReportTDX, q.Quote
		putTDReport(e.HCL.Hardware[:], binding)
		return nil
	}
	r, err := snp.ParseEvidence(ev)
	if err != nil {
		return err
	}
	e.HCL.Type, e.HCL.Hardware, e.VCEK = ReportSNP, [hardwareSize]byte(r.Report.Marshal()), r.Certificates[0].Data
	return nil
}

// putTDReport writes what a reader of the HCL report looks for in a TDREPORT:
// its type and report data (TDX Module ABI, REPORTMACSTRUCT). No verifier
// believes it, for only its own processor can check it; the quote counts.
func putTDReport(area []byte, data measure.ReportData) {
	area[0] = 0x81
	copy(area[128:], data[:])
}

// quote lets the vTPM sign its PCRs.
func (s *Simulator) quote(e *Evidence, extra []byte, selection ...tpm.Selection) error {
	message, signature, values, err := s.device.Quote(extra, selection...)
	if err != nil {
		return err
	}
	e.Message, e.Signature, e.PCRs = message, signature.RSA, values
	e.Quote, err = tpm.ParseQuote(message)
	return err
}
