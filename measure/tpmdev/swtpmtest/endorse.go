package swtpmtest

import (
	"crypto"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// EndorsementKey has the TPM make a key of its endorsement hierarchy from a public
// area, and returns the public half.
func EndorsementKey(t testing.TB, open func() (transport.TPMCloser, error), template tpm2.TPMTPublic) crypto.PublicKey {
	t.Helper()
	var key crypto.PublicKey
	with(t, open, func(dev transport.TPM) error {
		made, err := tpm2.CreatePrimary{
			PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)}, InPublic: tpm2.New2B(template),
		}.Execute(dev)
		if err != nil {
			return fmt.Errorf("make an endorsement key: %w", err)
		}
		public, err := made.OutPublic.Contents()
		if err != nil {
			return err
		}
		if key, err = tpm2.Pub(*public); err != nil {
			return err
		}
		_, err = tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(dev)
		return err
	})
	return key
}

// nvChunk is what one command writes of an index, in bytes.
const nvChunk = 512

// WriteNV makes an index with a content, in place of one that is there: what
// manufacturers do with certificates.
func WriteNV(t testing.TB, open func() (transport.TPMCloser, error), index uint32, data []byte) {
	t.Helper()
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	named := func(dev transport.TPM) (tpm2.NamedHandle, error) {
		rsp, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(dev)
		if err != nil {
			return tpm2.NamedHandle{}, err
		}
		return tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: rsp.NVName}, nil
	}
	with(t, open, func(dev transport.TPM) error {
		if old, err := named(dev); err == nil {
			if _, err := (tpm2.NVUndefineSpace{AuthHandle: owner, NVIndex: old}).Execute(dev); err != nil {
				return err
			}
		}
		if _, err := (tpm2.NVDefineSpace{AuthHandle: owner, PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: tpm2.TPMHandle(index), NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(data)), //nolint:gosec // a certificate
			Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NT: tpm2.TPMNTOrdinary},
		})}).Execute(dev); err != nil {
			return fmt.Errorf("define NV index %#x: %w", index, err)
		}
		for at := 0; at < len(data); at += nvChunk {
			nv, err := named(dev) // its name changes with the first write
			if err != nil {
				return err
			}
			if _, err := (tpm2.NVWrite{
				AuthHandle: owner, NVIndex: nv, Offset: uint16(at), //nolint:gosec // below its size
				Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[at:min(at+nvChunk, len(data))]},
			}).Execute(dev); err != nil {
				return fmt.Errorf("write NV index %#x: %w", index, err)
			}
		}
		return nil
	})
}

func with(t testing.TB, open func() (transport.TPMCloser, error), f func(transport.TPM) error) {
	t.Helper()
	dev, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if err := f(dev); err != nil {
		t.Error(err)
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// Manufactured starts a TPM that swtpm_setup made with the given options
// (--tpm2 and --create-ek-cert are given anyway), and returns the path of its socket
// and the manufacturer's certificates in PEM. Whoever wrote that program read the TCG's
// documents for themselves. Without it the test is skipped.
func Manufactured(t testing.TB, options ...string) (socket string, roots []byte) {
	t.Helper()
	var paths []string
	for _, p := range []string{"swtpm", "swtpm_setup", "swtpm_localca", "certtool"} {
		path, err := exec.LookPath(p)
		if err != nil {
			t.Skipf("%s is absent (%v); the Debian packages swtpm-tools and gnutls-bin have it", p, err)
		}
		paths = append(paths, path)
	}
	dir, err := os.MkdirTemp("", "swtpm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{
		"setup.conf": fmt.Sprintf("create_certs_tool = %s\ncreate_certs_tool_config = %s\ncreate_certs_tool_options = %s\n", paths[2], file("ca.conf"), file("ca.options")),
		"ca.conf":    fmt.Sprintf("statedir = %[1]s\nsigningkey = %[1]s/signkey.pem\nissuercert = %[1]s/issuer.pem\ncertserial = %[1]s/serial\n", dir),
		"ca.options": "--platform-manufacturer maker\n--platform-version 1\n--platform-model simulated\n",
	} {
		if err := os.WriteFile(file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"--tpm2", "--tpm-state", dir, "--tpm", paths[0] + " socket", "--config", file("setup.conf"), "--create-ek-cert", "--lock-nvram"}, options...)
	cmd := exec.CommandContext(t.Context(), paths[1], args...) //nolint:gosec // found above
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("swtpm_setup %v: %v\n%s", options, err, out)
	}
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuer.pem"} {
		raw, err := os.ReadFile(file(name))
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, raw...)
	}
	serve(t, paths[0], dir)
	return file(socketName), roots
}
