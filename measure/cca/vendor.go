package cca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/simdir"
)

// Files of a simulated machine and of a simulated realm.
const (
	fileMachineKey = "cpak.key"
	fileStore      = "root.json" // what [TrustStore] takes
	fileRealmKey   = "rak.key"
	filePlatform   = "platform.cbor" // the platform's part, signed
	fileLaunch     = "launch.json"
)

// The profiles that simulated tokens follow.
const (
	simPlatformProfile = "tag:arm.com,2023:cca_platform#1.0.0"
	simRealmProfile    = "tag:arm.com,2023:realm#1.0.0"
)

// simulatedImplementation starts the implementation id of every simulated
// machine. A trust store with one is not taken for one of real machines.
const simulatedImplementation = "simulated CCA machine"

// machine is a simulated platform: its key, and what it says of itself.
type machine struct {
	key      *ecdsa.PrivateKey
	platform wirePlatform // without the challenge
}

// CreateVendor makes a simulated machine in a directory that must not hold one
// yet: its key, and root.json, the trust store that names it. Machines of this
// architecture have no vendor's root above them, so the machine is all there
// is. The key file can make evidence that every verifier trusts which names
// this root; it has mode 0600.
func CreateVendor(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, fileStore)); err == nil {
		return fmt.Errorf("create machine: %s: %w", filepath.Join(dir, fileStore), fs.ErrExist)
	}
	m, err := newMachine()
	if err != nil {
		return fmt.Errorf("create machine: %w", err)
	}
	if err := m.write(dir); err != nil {
		return fmt.Errorf("create machine: %w", err)
	}
	return nil
}

func newMachine() (*machine, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return machineOf(key)
}

// machineOf makes the machine of a key. Its instance id is the key's hash, as
// Arm's reference firmware has it; its implementation id says what it is.
func machineOf(key *ecdsa.PrivateKey) (*machine, error) {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	instance := sha256.Sum256(point)
	implementation := make([]byte, 32)
	copy(implementation, simulatedImplementation)
	profile, hash := simPlatformProfile, "sha-256"
	return &machine{key: key, platform: wirePlatform{
		Profile: &profile, HashAlgorithm: &hash, ImplementationID: implementation,
		InstanceID: append([]byte{1}, instance[:]...), Config: []byte{0},
		Components: []wireComponent{simFirmware("BL2", "1.0"), simFirmware("RMM", "1.0")},
	}}, nil
}

// simFirmware is a piece of firmware that does not exist, with a stable digest
// that reference values can name.
func simFirmware(role, version string) wireComponent {
	code, signer := sha256.Sum256([]byte("simulated "+role+" "+version)), sha256.Sum256([]byte("simulated signer"))
	return wireComponent{Type: role, Version: version, Measurement: code[:], Signer: signer[:], HashAlgorithm: "sha-256"}
}

// bundle returns root.json.
func (m *machine) bundle() ([]byte, error) {
	point, err := m.key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	half := (len(point) - 1) / 2
	jwk, err := json.Marshal(map[string]string{
		"kty": "EC", "crv": m.key.Params().Name,
		"x": base64.RawURLEncoding.EncodeToString(point[1 : 1+half]),
		"y": base64.RawURLEncoding.EncodeToString(point[1+half:]),
	})
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent([]wireAnchor{{
		Key: jwk, Implementation: hex.EncodeToString(m.platform.ImplementationID), Instance: hex.EncodeToString(m.platform.InstanceID),
	}}, "", "  ")
}

// write puts the machine into a directory. The trust store comes last: a
// directory without one holds no machine.
func (m *machine) write(dir string) error {
	key, err := simdir.Key(fileMachineKey, m.key)
	if err != nil {
		return err
	}
	bundle, err := m.bundle()
	if err != nil {
		return err
	}
	return simdir.Write(dir, key, simdir.File{Name: fileStore, Data: append(bundle, '\n'), Mode: simdir.Public})
}

// openMachine reads what is needed to make realms.
func openMachine(dir string) (*machine, error) {
	if _, err := os.Stat(filepath.Join(dir, fileStore)); err != nil {
		return nil, err
	}
	key, err := simdir.ReadECDSA(dir, fileMachineKey)
	if err != nil {
		return nil, err
	}
	return machineOf(key)
}

// vouch signs the platform's part for a realm's key, in a lifecycle.
func (m *machine) vouch(rak []byte, lifecycle uint16) ([]byte, error) {
	hash := sha256.Sum256(rak)
	p := m.platform
	p.Challenge, p.Lifecycle = hash[:], &lifecycle
	return signPart(p, m.key)
}

// encoding is deterministic.
var encoding = mustEncMode(cbor.CoreDetEncOptions())

func mustEncMode(o cbor.EncOptions) cbor.EncMode {
	mode, err := o.EncMode()
	if err != nil {
		panic(err) // constants
	}
	return mode
}

// signPart wraps claims as COSE_Sign1 with its tag.
func signPart(claims any, key *ecdsa.PrivateKey) ([]byte, error) {
	payload, err := encoding.Marshal(claims)
	if err != nil {
		return nil, err
	}
	alg, err := algorithmOf(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	signer, err := cose.NewSigner(alg, key)
	if err != nil {
		return nil, err
	}
	m := cose.NewSign1Message()
	m.Headers.Protected.SetAlgorithm(alg)
	m.Payload = payload
	if err := m.Sign(rand.Reader, nil, signer); err != nil {
		return nil, err
	}
	return m.MarshalCBOR()
}

// join puts two signed parts into the outer form of the later editions, or of
// the first.
func join(tag uint64, platform, realm []byte) ([]byte, error) {
	if tag == tagCollection {
		return encoding.Marshal(cbor.Tag{Number: tag, Content: map[uint64]any{labelPlatform: platform, labelRealm: realm}})
	}
	return encoding.Marshal(cbor.Tag{Number: tag, Content: map[uint64]any{
		labelPlatform: []any{formatCWT, platform}, labelRealm: []any{formatCWT, realm},
	}})
}
