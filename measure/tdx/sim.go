package tdx

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/simdir"
)

// Files of a simulated guest.
const (
	fileLaunch = "launch.json"
	fileLog    = "ccel.bin"
)

// guestFile is launch.json: what the simulated TDX module knows about its one
// TD. Byte strings are hex.
type guestFile struct {
	Platform       string `json:"platform"`
	TDX15          bool   `json:"tdx_1_5"`
	MRTD           string `json:"mr_td"`
	MRConfigID     string `json:"mr_config_id"`
	Attributes     string `json:"td_attributes"`
	XFAM           uint64 `json:"xfam"`
	ServiceTD      string `json:"mr_servicetd,omitempty"`
	MRSEAM         string `json:"mr_seam"`
	RunningSVN     string `json:"tee_tcb_svn2,omitempty"`
	LaunchedSVN    string `json:"tee_tcb_svn"`
	SEAMSigner     string `json:"mrsigner_seam"`
	SEAMAttributes string `json:"seam_attributes"`
}

// CreateGuest launches a simulated TD: it measures the launch, and puts a chip
// of its own under the vendor of vendorDir into guestDir, which must not hold
// a guest yet. Whoever can read the directory can make evidence of this guest;
// the key file has mode 0600.
func CreateGuest(vendorDir, guestDir string, l Launch) error {
	if err := createGuest(vendorDir, guestDir, l); err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	return nil
}

func createGuest(vendorDir, guestDir string, l Launch) error {
	p, err := Simulate(l)
	if err != nil {
		return err
	}
	v, err := dcap.OpenVendor(vendorDir)
	if err != nil {
		return err
	}
	chip, err := v.NewChip(dcap.TDX, time.Now(), l.Chip)
	if err != nil {
		return err
	}
	if l.Attributes == 0 {
		l.Attributes = DefaultAttributes
	}
	module := dcap.SimulatedModule()
	if l.Module != nil {
		l.Module(&module)
	}
	f := guestFile{
		Platform: string(measure.TDX), TDX15: l.TDX15, MRTD: hex.EncodeToString(p.MRTD[:]),
		MRConfigID: hex.EncodeToString(initdata.Fit(l.InitDataDigest, len(Register{}))),
		Attributes: fmt.Sprintf("%016x", uint64(l.Attributes)), XFAM: simulatedXFAM,
		MRSEAM: hex.EncodeToString(simulatedSEAM[:]), LaunchedSVN: hex.EncodeToString(module.SVN[:]),
		SEAMSigner: hex.EncodeToString(module.Signer[:]), SEAMAttributes: hex.EncodeToString(module.Attributes[:]),
	}
	if l.TDX15 {
		f.RunningSVN, f.ServiceTD = f.LaunchedSVN, hex.EncodeToString(make([]byte, len(Register{})))
		if module.Running != nil {
			f.RunningSVN = hex.EncodeToString(module.Running[:])
		}
	}
	launch, err := simdir.JSON(fileLaunch, f)
	if err != nil {
		return err
	}
	log := simdir.File{Name: fileLog, Data: p.Log.Marshal(), Mode: simdir.Public}
	if err := chip.Save(guestDir); err != nil {
		return err
	}
	return simdir.Write(guestDir, log, launch)
}

// simulatedXFAM is that of a processor with AVX-512 and AMX.
const simulatedXFAM = 0x602e7

// simulatedSEAM is the measurement of the simulated TDX module.
var simulatedSEAM = Register([]byte("simulated TDX module: no hardware runs this TD  "))

// Simulator stands in for the TDX module and the quoting enclave of one
// simulated TD. Its quotes are real in every byte but for the vendor above
// them. It is safe for concurrent use.
type Simulator struct {
	chip *dcap.Chip

	mu     sync.Mutex
	report Report // with the current registers; report data is that of each quote
	log    *eventlog.Log
}

// OpenSimulator opens a directory that [CreateGuest] made. The run-time
// registers are those right after the boot.
func OpenSimulator(guestDir string) (*Simulator, error) {
	s, err := openSimulator(guestDir)
	if err != nil {
		return nil, fmt.Errorf("open simulated guest: %w", err)
	}
	return s, nil
}

func openSimulator(guestDir string) (*Simulator, error) {
	var f guestFile
	if err := simdir.ReadJSON(guestDir, fileLaunch, &f); err != nil {
		return nil, err
	}
	if f.Platform != string(measure.TDX) {
		return nil, fmt.Errorf("%s: a guest of platform %q", fileLaunch, f.Platform)
	}
	raw, err := simdir.Read(guestDir, fileLog)
	if err != nil {
		return nil, err
	}
	s := new(Simulator)
	if s.log, err = eventlog.Parse(raw); err != nil {
		return nil, err
	}
	if s.chip, err = dcap.OpenChip(dcap.TDX, guestDir); err != nil {
		return nil, err
	}
	if err := f.report(&s.report); err != nil {
		return nil, fmt.Errorf("%s: %w", fileLaunch, err)
	}
	return s, s.replay()
}

// report fills in what stays the same from one quote to the next.
func (f *guestFile) report(r *Report) error {
	var attributes [8]byte
	err := errors.Join(
		hexField("mr_td", r.MRTD[:], f.MRTD), hexField("mr_config_id", r.MRConfigID[:], f.MRConfigID),
		hexField("mr_seam", r.MRSEAM[:], f.MRSEAM), hexField("tee_tcb_svn", r.TEETCBSVN[:], f.LaunchedSVN),
		hexField("td_attributes", attributes[:], f.Attributes), hexField("mrsigner_seam", r.MRSignerSEAM[:], f.SEAMSigner),
		hexField("seam_attributes", r.SEAMAttributes[:], f.SEAMAttributes),
	)
	r.XFAM = f.XFAM
	for _, b := range attributes {
		r.Attributes = r.Attributes<<8 | Attributes(b)
	}
	if f.TDX15 {
		r.TDX15 = new(TDX15)
		err = errors.Join(err, hexField("tee_tcb_svn2", r.TDX15.TEETCBSVN2[:], f.RunningSVN),
			hexField("mr_servicetd", r.TDX15.MRServiceTD[:], f.ServiceTD))
	}
	return err
}

func hexField(name string, field []byte, text string) error {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(field) {
		return fmt.Errorf("%s is not the hex of %d bytes", name, len(field))
	}
	copy(field, b)
	return nil
}

// replay makes the registers those of the log. The caller holds the lock, or
// is the only one who knows the simulator.
func (s *Simulator) replay() error {
	p := Prediction{Log: s.log}
	if err := p.replay(); err != nil {
		return err
	}
	s.report.RTMR = p.RTMR
	return nil
}

// Platform returns [measure.TDX].
func (s *Simulator) Platform() measure.Platform { return measure.TDX }

// Evidence returns a quote over the report data with the event log so far, in
// the wire form of kbs-protocol 16.3.
func (s *Simulator) Evidence(ctx context.Context, data measure.ReportData) (measure.Evidence, error) {
	if err := ctx.Err(); err != nil {
		return measure.Evidence{}, err
	}
	s.mu.Lock()
	r, log := s.report, s.log.Marshal()
	s.mu.Unlock()
	r.ReportData = data
	q, err := s.quote(&r)
	if err != nil {
		return measure.Evidence{}, err
	}
	e := Evidence{Quote: q, EventLog: append(log, eventlog.EndMarker...)}
	return e.Wire()
}

func (s *Simulator) quote(r *Report) ([]byte, error) {
	version, kind := uint16(4), dcap.BodyTD10
	if r.TDX15 != nil {
		version, kind = 5, dcap.BodyTD15
	}
	q, err := s.chip.Quote(version, kind, r.Marshal())
	if err != nil {
		return nil, err
	}
	return q.Marshal(), nil
}

// Extend extends the register of a PCR with a run-time event and logs it, as
// the attestation agent does (guest-protocol 6). It lasts as long as the
// simulator.
func (s *Simulator) Extend(pcr int, event eventlog.RuntimeEvent) error {
	e, err := event.Event(eventlog.MRIndex(pcr), eventlog.SHA384)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.Events = append(s.log.Events, e)
	return s.replay()
}

// ExtendRegister extends RTMR n by a digest and logs nothing, as the TDX module
// does: for who keeps the log itself. [Simulator.Extend] forgets it.
func (s *Simulator) ExtendRegister(n int, digest []byte) error {
	if n < 0 || n > 3 || len(digest) != len(Register{}) {
		return fmt.Errorf("RTMR%d cannot be extended by %d bytes", n, len(digest))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.RTMR[n] = Register(eventlog.Extend(eventlog.SHA384, s.report.RTMR[n][:], digest))
	return nil
}

// Registers returns the RTMRs as they are.
func (s *Simulator) Registers() [4]Register {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report.RTMR
}

// BindInitData compares MRCONFIGID with the digest of an init-data document,
// as [Attester.BindInitData] does on hardware.
func (s *Simulator) BindInitData(_ context.Context, digest []byte) error {
	id := s.MRConfigID()
	return initdata.CompareField(id[:], digest)
}

// MRConfigID returns the register as a guest on hardware learns it: from a
// report.
func (s *Simulator) MRConfigID() Register {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report.MRConfigID
}
