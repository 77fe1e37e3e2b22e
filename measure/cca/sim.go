package cca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/veraison/go-cose"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/simdir"
)

// PersonalizationSize is the width of the realm personalization value, in
// bytes.
const PersonalizationSize = 64

// Launch is what a simulated realm is started from: a process, not a virtual
// machine.
type Launch struct {
	Image          []byte // what is executed, for example the agent binary
	CommandLine    string
	InitDataDigest []byte // the personalization value, cut or filled up to 64 bytes; may be empty
	// Lifecycle is the claim of the machine; 0 means secured.
	Lifecycle uint16
}

// Predict returns the initial measurement that a simulated realm started like
// this will have. It is made of image and command line alone; that of a real
// realm is a chain over every call that built it, which nothing here computes.
func Predict(l Launch) (rim [sha512.Size]byte, err error) {
	if len(l.Image) == 0 {
		return rim, errors.New("the image is empty")
	}
	image, commandLine := sha512.Sum512(l.Image), sha512.Sum512([]byte(l.CommandLine))
	return sha512.Sum512(append(append([]byte("simulated realm"), image[:]...), commandLine[:]...)), nil
}

// launchFile is launch.json: what the simulated realm management monitor knows
// about its one realm. Byte strings are hex.
type launchFile struct {
	Platform        string `json:"platform"`
	Measurement     string `json:"measurement"`
	Personalization string `json:"personalization"`
}

// CreateGuest starts a simulated realm on the machine of vendorDir: it measures
// the launch, makes a key for the realm, and lets the machine vouch for it.
// The directory must not hold a realm yet. Whoever can read it can make
// evidence of this realm; the key file has mode 0600.
func CreateGuest(vendorDir, guestDir string, l Launch) error {
	if err := createGuest(vendorDir, guestDir, l); err != nil {
		return fmt.Errorf("create realm: %w", err)
	}
	return nil
}

func createGuest(vendorDir, guestDir string, l Launch) error {
	rim, err := Predict(l)
	if err != nil {
		return err
	}
	m, err := openMachine(vendorDir)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := coseKey(&key.PublicKey)
	if err != nil {
		return err
	}
	if l.Lifecycle == 0 {
		l.Lifecycle = uint16(Secured) << 8
	}
	platform, err := m.vouch(public, l.Lifecycle)
	if err != nil {
		return err
	}
	secret, err := simdir.Key(fileRealmKey, key)
	if err != nil {
		return err
	}
	launch, err := simdir.JSON(fileLaunch, launchFile{
		Platform: string(measure.CCA), Measurement: hex.EncodeToString(rim[:]),
		Personalization: hex.EncodeToString(initdata.Fit(l.InitDataDigest, PersonalizationSize)),
	})
	if err != nil {
		return err
	}
	return simdir.Write(guestDir, secret, simdir.File{Name: filePlatform, Data: platform, Mode: simdir.Public}, launch)
}

// coseKey writes a realm's key as the 2023 profile has it.
func coseKey(key *ecdsa.PublicKey) ([]byte, error) {
	k, err := cose.NewKeyFromPublic(key)
	if err != nil {
		return nil, err
	}
	return k.MarshalCBOR()
}

// Simulator stands in for the realm management monitor of one simulated realm.
// Its tokens are real in every byte but for the machine below them. It is safe
// for concurrent use.
type Simulator struct {
	key      *ecdsa.PrivateKey
	platform []byte
	realm    wireRealm // without the challenge
}

// OpenSimulator opens a directory that [CreateGuest] made.
func OpenSimulator(guestDir string) (*Simulator, error) {
	s := new(Simulator)
	if err := s.open(guestDir); err != nil {
		return nil, fmt.Errorf("open simulated realm: %w", err)
	}
	return s, nil
}

func (s *Simulator) open(dir string) (err error) {
	if s.key, err = simdir.ReadECDSA(dir, fileRealmKey); err != nil {
		return err
	}
	if s.platform, err = os.ReadFile(filepath.Join(dir, filePlatform)); err != nil {
		return err
	}
	var l launchFile
	if err := simdir.ReadJSON(dir, fileLaunch, &l); err != nil {
		return err
	}
	if l.Platform != string(measure.CCA) {
		return fmt.Errorf("a guest of platform %q", l.Platform)
	}
	var (
		rim             [sha512.Size]byte
		personalization [PersonalizationSize]byte
	)
	if err := errors.Join(hexInto(rim[:], l.Measurement), hexInto(personalization[:], l.Personalization)); err != nil {
		return fmt.Errorf("%s: %w", fileLaunch, err)
	}
	public, err := coseKey(&s.key.PublicKey)
	if err != nil {
		return err
	}
	hash, keyHash := "sha-512", "sha-256"
	s.realm = wireRealm{
		Profile: simRealmProfile, HashAlgorithm: &hash, KeyHash: &keyHash, PublicKey: public,
		Initial: rim[:], Personalization: personalization[:], Extensible: make([][]byte, 4),
	}
	for i := range s.realm.Extensible {
		s.realm.Extensible[i] = make([]byte, sha512.Size)
	}
	return nil
}

// Platform returns [measure.CCA].
func (s *Simulator) Platform() measure.Platform { return measure.CCA }

// Evidence returns a token over the report data, in the wire form of
// kbs-protocol 16.7.
func (s *Simulator) Evidence(ctx context.Context, data measure.ReportData) (measure.Evidence, error) {
	if err := ctx.Err(); err != nil {
		return measure.Evidence{}, err
	}
	token, err := s.token(data, tagCMW)
	if err != nil {
		return measure.Evidence{}, err
	}
	return Wire(token)
}

func (s *Simulator) token(data measure.ReportData, tag uint64) ([]byte, error) {
	r := s.realm
	r.Challenge = data[:]
	realm, err := signPart(r, s.key)
	if err != nil {
		return nil, err
	}
	return join(tag, s.platform, realm)
}
