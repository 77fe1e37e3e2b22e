package boot

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// The firmware of machines with Secure Boot, which has its variables apart and keeps
// them from the system that it starts.
const (
	firmwareCode      = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	firmwareVariables = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// owner writes a key with its certificate, and the variables of machines that
// start what it signs and nothing else.
func owner(t *testing.T, dir string) *boot.SecureBoot {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "owner"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	list := efi.SignatureList(efi.Signature{Kind: efi.CertX509, Owner: efi.NewGUID(1, 2, 3, 4), Data: certificate})
	for name, content := range map[string][]byte{
		"key.pem":    pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		"cert.pem":   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		boot.FilePK:  list,
		boot.FileKEK: list,
		boot.FileDB:  list,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := boot.ReadSecureBoot(func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) })
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// signedImage builds a form of the guest image, signed for Secure Boot, whose
// measurements are predicted for machines with just these keys.
func signedImage(t *testing.T, form, keys string) world.GuestImage {
	t.Helper()
	plain := image(t, form)
	guests := os.Getenv("VOUCHSAFE_GUESTS")
	out := filepath.Join(t.TempDir(), "image")
	cmd := exec.CommandContext(t.Context(), "../../bin/rootfs", "build", "--recipe", filepath.Join(guests, "boot.toml"), "--lock", filepath.Join(guests, "guest.lock"),
		"--agent", filepath.Join(guests, "guest-agent"), "--key", filepath.Join(guests, "release.key"), "--cache", filepath.Join(guests, "packages"),
		"--form", form, "--out", out, "--secureboot-key", filepath.Join(keys, "key.pem"), "--secureboot-cert", filepath.Join(keys, "cert.pem"), "--secureboot-variables", keys)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	plain.Dir = out
	return plain
}

// A machine that starts signed images only starts the one that its owner signed,
// from the EFI partition of a disk with the root beside it; it measures to what was
// foreseen, PCR 4, 5 (the disk's partitions) and 7 among it, and gets its secret. What
// is not signed, or by somebody else, does not start.
func TestSecureBoot(t *testing.T) {
	t.Parallel()
	mine, strange := t.TempDir(), t.TempDir()
	keys := owner(t, mine)
	owner(t, strange)
	for name, dir := range map[string]string{"not signed": image(t, "uki").Dir, "signed by somebody else": signedImage(t, "uki", strange).Dir} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			notStarted(t, dir, keys)
		})
	}
	s := setStage(t, signedImage(t, "verity-disk", mine), nil)
	cfg := s.Config()
	cfg.Firmware, cfg.Variables, cfg.SecureBoot, cfg.SMM = firmwareCode, firmwareVariables, keys, true
	s.runs(t, cfg)
}

// notStarted boots an image on a machine that must not start it: the firmware's
// menu comes up instead, which never ends.
func notStarted(t *testing.T, dir string, keys *boot.SecureBoot) {
	t.Helper()
	cfg := qemu.Config{Accelerator: qemu.TCG, Firmware: firmwareCode, Variables: firmwareVariables, SecureBoot: keys, SMM: true}
	if err := cfg.Open(dir); err != nil {
		t.Fatal(err)
	}
	console, err := bare(t).Console(t.Context(), cfg, "Access Denied")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(console, "Linux version") || strings.Contains(console, `"msg":"serving"`) {
		t.Errorf("it starts:\n%s", console)
	}
}
