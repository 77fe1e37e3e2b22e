package snp

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/simdir"
)

// Files of a simulated guest.
const (
	fileChain  = "chain.pem" // VCEK or VLEK, ASK or ASVK, ARK
	fileLaunch = "launch.json"
)

// fileLeafKey is the key that signs the guest's reports.
func fileLeafKey(k SigningKey) string {
	if k == VLEK {
		return "vlek.key"
	}
	return "vcek.key"
}

// launchFile is launch.json: what the simulated secure processor knows about
// its one guest. Byte strings are hex.
type launchFile struct {
	Platform        string     `json:"platform"`
	Generation      Generation `json:"generation"`
	Measurement     string     `json:"measurement"`
	HostData        string     `json:"host_data"`
	Policy          uint64     `json:"policy"`
	ReportID        string     `json:"report_id"`
	ChipID          string     `json:"chip_id"`
	TCB             SVNs       `json:"tcb"`
	ReportVersion   uint32     `json:"report_version,omitempty"` // 0 means 3
	SigningKey      SigningKey `json:"signing_key,omitempty"`
	IDKeyDigest     string     `json:"id_key_digest,omitempty"`
	AuthorKeyDigest string     `json:"author_key_digest,omitempty"`
}

// GuestOptions say what the chip of a simulated guest is like, and how the
// guest was launched on it. The zero value is an ordinary chip and launch.
type GuestOptions struct {
	Key             SigningKey // VCEK, or VLEK under a vendor that lends
	CSP             string     // the cloud that a VLEK is lent to; "simulated" if empty
	TCB             *SVNs      // of the firmware; nil means one that is usual
	Issued          time.Time  // when the key's certificate begins; zero means now
	ReportVersion   uint32     // 2 to 5; 0 means 3
	IDKeyDigest     [48]byte   // zero for a launch without an ID block
	AuthorKeyDigest [48]byte
}

// CreateGuest launches a simulated guest on an ordinary chip: see
// [CreateGuestWith].
func CreateGuest(vendorDir, guestDir string, l Launch) error {
	return CreateGuestWith(vendorDir, guestDir, l, GuestOptions{})
}

// CreateGuestWith launches a simulated guest: it measures the launch, and puts
// a chip of its own with a fresh key under the vendor of vendorDir into
// guestDir, which must not hold a guest yet. Whoever can read the directory
// can make evidence of this guest; the key file has mode 0600.
func CreateGuestWith(vendorDir, guestDir string, l Launch, o GuestOptions) error {
	files, err := launchGuest(vendorDir, l, o)
	if err == nil {
		err = simdir.Write(guestDir, files...)
	}
	if err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	return nil
}

func launchGuest(vendorDir string, l Launch, o GuestOptions) ([]simdir.File, error) {
	measurement, err := Predict(l)
	if err != nil {
		return nil, err
	}
	v, err := openVendor(vendorDir)
	if err != nil {
		return nil, err
	}
	if l.Policy == 0 {
		l.Policy = DefaultPolicy
	}
	if o.TCB == nil {
		_, _, usual := v.generation.processor()
		o.TCB = &usual
	}
	if o.Issued.IsZero() {
		o.Issued = time.Now()
	}
	var chip [64]byte
	rand.Read(chip[:len(v.generation.HardwareID(chip))]) // the rest of the field is zero
	id := make([]byte, 32)
	rand.Read(id)
	secret, chain, err := v.equip(chip, o)
	if err != nil {
		return nil, err
	}
	file := launchFile{
		Platform: string(measure.SNP), Generation: v.generation,
		Measurement: hex.EncodeToString(measurement[:]),
		HostData:    hex.EncodeToString(initdata.Fit(l.InitDataDigest, initdata.SNPHostData)),
		Policy:      l.Policy, ReportID: hex.EncodeToString(id), ChipID: hex.EncodeToString(chip[:]), TCB: *o.TCB,
		ReportVersion: o.ReportVersion, SigningKey: o.Key,
	}
	if o.IDKeyDigest != [48]byte{} {
		file.IDKeyDigest = hex.EncodeToString(o.IDKeyDigest[:])
	}
	if o.AuthorKeyDigest != [48]byte{} {
		file.AuthorKeyDigest = hex.EncodeToString(o.AuthorKeyDigest[:])
	}
	launch, err := simdir.JSON(fileLaunch, file)
	if err != nil {
		return nil, err
	}
	return []simdir.File{secret, {Name: fileChain, Data: chain, Mode: simdir.Public}, launch}, nil
}

// equip makes the key that signs the guest's reports, and its chain.
func (v *vendor) equip(chip [64]byte, o GuestOptions) (secret simdir.File, chain []byte, err error) {
	if o.CSP == "" {
		o.CSP = "simulated"
	}
	signer := v.ask
	var leaf *x509.Certificate
	var key *ecdsa.PrivateKey
	switch o.Key {
	case VCEK:
		key, leaf, err = v.issueVCEK(v.generation.HardwareID(chip), *o.TCB, o.Issued)
	case VLEK:
		signer = v.asvk
		key, leaf, err = v.issueVLEK(o.CSP, *o.TCB, o.Issued)
	default:
		err = fmt.Errorf("no guest has a key of kind %s", o.Key)
	}
	if err != nil {
		return secret, nil, err
	}
	for _, c := range []*x509.Certificate{leaf, signer, v.ark} {
		chain = append(chain, encodeCertificate(c)...)
	}
	secret, err = simdir.Key(fileLeafKey(o.Key), key)
	return secret, chain, err
}
