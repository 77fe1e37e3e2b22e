package nvidia

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/simdir"
)

// Launch is what simulated GPUs run.
type Launch struct {
	Arch   Arch   // empty means Hopper
	Count  int    // GPUs in the guest; 0 means one
	Driver string // version; empty means 550.90.07
	VBIOS  string // four bytes in hex with dots and one more; empty means 96.00.9f.00.01
}

func (l *Launch) fill() error {
	if l.Arch == "" {
		l.Arch = Hopper
	}
	if l.Count == 0 {
		l.Count = 1
	}
	if l.Driver == "" {
		l.Driver = "550.90.07"
	}
	if l.VBIOS == "" {
		l.VBIOS = "96.00.9f.00.01"
	}
	if l.Arch != Hopper && l.Arch != Blackwell || l.Count < 0 || l.Count > maxDevices || len(l.Driver) > maxText {
		return fmt.Errorf("%d simulated GPUs of kind %q with driver %.20q", l.Count, l.Arch, l.Driver)
	}
	_, err := vbiosBytes(l.VBIOS)
	return err
}

// vbiosBytes is the inverse of vbios.
func vbiosBytes(version string) ([]byte, error) {
	var b [5]byte
	n, err := fmt.Sscanf(version, "%02x.%02x.%02x.%02x.%02x", &b[0], &b[1], &b[2], &b[3], &b[4])
	if err != nil || n != 5 {
		return nil, fmt.Errorf("VBIOS version %.40q is not like 96.00.9f.00.01", version)
	}
	return []byte{b[3], b[2], b[1], b[0], b[4], 0, 0, 0}, nil
}

// simMeasurements is how many measurements a simulated GPU reports.
const simMeasurements = 8

// Predict returns the measurements of a simulated GPU, by index: the first half
// is of its driver, the second of its VBIOS.
func Predict(l Launch) (map[int][]byte, error) {
	if err := l.fill(); err != nil {
		return nil, err
	}
	out := map[int][]byte{}
	for i := 1; i <= simMeasurements; i++ {
		what := "driver " + l.Driver
		if i > simMeasurements/2 {
			what = "vbios " + l.VBIOS
		}
		s := sha512.Sum384(fmt.Appendf(nil, "simulated %s %s, measurement %d", l.Arch, what, i))
		out[i] = s[:]
	}
	return out, nil
}

// launchFile is launch.json: what the simulated GPUs run.
type launchFile struct {
	Platform string `json:"platform"`
	Arch     Arch   `json:"arch"`
	Count    int    `json:"count"`
	Driver   string `json:"driver"`
	VBIOS    string `json:"vbios"`
}

func deviceKey(i int) string   { return "gpu" + strconv.Itoa(i) + ".key" }
func deviceChain(i int) string { return "gpu" + strconv.Itoa(i) + ".pem" }

// CreateGuest puts simulated GPUs under the vendor of vendorDir into guestDir,
// which must not hold any yet, and beside them the manifests that know them,
// driver.rim.json and vbios.rim.json. Whoever can read the directory can make
// evidence of these GPUs; the key files have mode 0600.
func CreateGuest(vendorDir, guestDir string, l Launch) error {
	if err := createGuest(vendorDir, guestDir, l); err != nil {
		return fmt.Errorf("create GPUs: %w", err)
	}
	return nil
}

func createGuest(vendorDir, guestDir string, l Launch) error {
	if err := l.fill(); err != nil {
		return err
	}
	v, err := openVendor(vendorDir)
	if err != nil {
		return err
	}
	var files []simdir.File
	for i := range l.Count {
		key, chain, err := v.certify(l.Arch, simFWID(l), time.Now())
		if err != nil {
			return err
		}
		secret, err := simdir.Key(deviceKey(i), key)
		if err != nil {
			return err
		}
		files = append(files, secret, simdir.File{Name: deviceChain(i), Data: pemOf(chain...), Mode: simdir.Public})
	}
	manifests, err := l.manifests()
	if err != nil {
		return err
	}
	launch, err := simdir.JSON(fileLaunch, launchFile{string(measure.NVIDIA), l.Arch, l.Count, l.Driver, l.VBIOS})
	if err != nil {
		return err
	}
	return simdir.Write(guestDir, append(append(files, manifests...), launch)...)
}

// simFWID is the digest of the firmware that does not exist.
func simFWID(l Launch) []byte {
	s := sha512.Sum384(fmt.Appendf(nil, "simulated %s firmware", l.Arch))
	return s[:]
}

// Simulator stands in for the GPUs of one guest. Its reports are real in every
// byte but for the authority above them. It is safe for concurrent use.
type Simulator struct {
	launch       Launch
	measurements map[int][]byte
	gpus         []gpu
}

type gpu struct {
	key   *ecdsa.PrivateKey
	chain []byte // PEM
}

// OpenSimulator opens a directory that [CreateGuest] made.
func OpenSimulator(guestDir string) (*Simulator, error) {
	s := new(Simulator)
	if err := s.open(guestDir); err != nil {
		return nil, fmt.Errorf("open simulated GPUs: %w", err)
	}
	return s, nil
}

func (s *Simulator) open(dir string) (err error) {
	var l launchFile
	if err := simdir.ReadJSON(dir, fileLaunch, &l); err != nil {
		return err
	}
	if l.Platform != string(measure.NVIDIA) || l.Count < 1 {
		return errors.New("no GPUs of platform nvidia")
	}
	s.launch = Launch{Arch: l.Arch, Count: l.Count, Driver: l.Driver, VBIOS: l.VBIOS}
	if s.measurements, err = Predict(s.launch); err != nil {
		return err
	}
	for i := range l.Count {
		var g gpu
		if g.key, err = simdir.ReadECDSA(dir, deviceKey(i)); err != nil {
			return err
		}
		if g.chain, err = os.ReadFile(filepath.Join(dir, deviceChain(i))); err != nil {
			return err
		}
		s.gpus = append(s.gpus, g)
	}
	return nil
}

// Platform returns [measure.NVIDIA].
func (s *Simulator) Platform() measure.Platform { return measure.NVIDIA }

// Evidence returns a report of every GPU over the first 32 bytes of the report
// data, in the wire form of kbs-protocol 16.8.
func (s *Simulator) Evidence(ctx context.Context, data measure.ReportData) (measure.Evidence, error) {
	if err := ctx.Err(); err != nil {
		return measure.Evidence{}, err
	}
	r, err := s.report(data)
	if err != nil {
		return measure.Evidence{}, err
	}
	devices := make([]Device, len(s.gpus))
	for i, g := range s.gpus {
		devices[i] = Device{Arch: s.launch.Arch, UUID: "GPU-simulated-" + strconv.Itoa(i), Certificate: g.chain}
		if devices[i].Report, err = r.sign(g.key); err != nil {
			return measure.Evidence{}, err
		}
	}
	return Wire(devices...)
}

// report is that of any of the GPUs before it is signed.
func (s *Simulator) report(data measure.ReportData) (*Report, error) {
	version, err := vbiosBytes(s.launch.VBIOS)
	if err != nil {
		return nil, err
	}
	return &Report{
		Nonce: [nonceSize]byte(data[:nonceSize]), Signed: true, All: true, Measurements: s.measurements,
		Opaque: map[FieldType][]byte{
			FieldDriver: append([]byte(s.launch.Driver), 0), FieldVBIOS: version, FieldNVDEC0: {nvdecDisabled}, FieldFWID: simFWID(s.launch),
		},
	}, nil
}

// sign writes a report as the GPU does.
func (r *Report) sign(key *ecdsa.PrivateKey) ([]byte, error) {
	message := r.transcript()
	digest := sha512.Sum384(message)
	x, y, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return nil, err
	}
	var signature [signatureSize]byte
	x.FillBytes(signature[:signatureSize/2])
	y.FillBytes(signature[signatureSize/2:])
	return append(message, signature[:]...), nil
}

// transcript is the inverse of ParseReport up to the signature.
func (r *Report) transcript() []byte {
	flag := func(set bool, value byte) byte {
		if set {
			return value
		}
		return 0
	}
	out := []byte{spdmVersion, codeGetMeasurements, flag(r.Signed, paramSigned), flag(r.All, paramAll)}
	out = append(append(out, r.Nonce[:]...), 0)
	var record []byte
	for _, i := range indices(r.Measurements) {
		value := r.Measurements[i]
		record = append(record, byte(i), specDMTF)
		record = binary.LittleEndian.AppendUint16(record, uint16(len(value)+3))
		record = binary.LittleEndian.AppendUint16(append(record, 1), uint16(len(value)))
		record = append(record, value...)
	}
	out = append(out, spdmVersion, codeMeasurements, 0, 0, byte(len(r.Measurements)), byte(len(record)), byte(len(record)>>8), byte(len(record)>>16))
	out = append(out, record...)
	var answer [nonceSize]byte
	rand.Read(answer[:])
	out = append(out, answer[:]...)
	var opaque []byte
	for _, kind := range indices(r.Opaque) {
		opaque = binary.LittleEndian.AppendUint16(opaque, uint16(kind))
		opaque = binary.LittleEndian.AppendUint16(opaque, uint16(len(r.Opaque[kind])))
		opaque = append(opaque, r.Opaque[kind]...)
	}
	out = binary.LittleEndian.AppendUint16(out, uint16(len(opaque)))
	return append(out, opaque...)
}

// manifests are reference measurements that know these GPUs, driver.rim.json and
// vbios.rim.json, in the form that a verifier takes.
func (l Launch) manifests() ([]simdir.File, error) {
	measurements, err := Predict(l)
	if err != nil {
		return nil, err
	}
	if err := l.fill(); err != nil {
		return nil, err
	}
	parts := map[Component]map[string][]string{Driver: {}, VBIOS: {}}
	for _, i := range indices(measurements) {
		c := Driver
		if i > simMeasurements/2 {
			c = VBIOS
		}
		parts[c][strconv.Itoa(i)] = []string{hex.EncodeToString(measurements[i])}
	}
	var files []simdir.File
	for _, c := range []struct {
		component Component
		version   string
	}{{Driver, l.Driver}, {VBIOS, l.VBIOS}} {
		f, err := simdir.JSON(string(c.component)+".rim.json", map[string]any{
			"arch": l.Arch, "component": c.component, "version": c.version, "measurements": parts[c.component],
		})
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}
