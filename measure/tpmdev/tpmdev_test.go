package tpmdev

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/vouchsafe-cc/vouchsafe/measure/ek"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev/swtpmtest"
)

const handle = 0x81010002

func soft(t *testing.T) *TPM {
	t.Helper()
	return New(swtpmtest.Start(t))
}

func TestPresent(t *testing.T) {
	dir := t.TempDir()
	for name, open := range map[string]Opener{
		"connection": swtpmtest.Start(t), "path": File(filepath.Join(dir, "none"), swtpmtest.Socket(t)),
	} {
		if err := New(open).Present(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := New(File(filepath.Join(dir, "a"), filepath.Join(dir, "b"))).Present(t.Context())
	if !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), filepath.Join(dir, "b")) {
		t.Errorf("got %v", err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := New(File(plain)).Present(t.Context()); err == nil || errors.Is(err, ErrNoDevice) {
		t.Errorf("a plain file: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(File(plain)).Present(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller went away: %v", err)
	}
}

func TestQuote(t *testing.T) {
	tpm := soft(t)
	if _, err := tpm.AttestationKey(t.Context(), handle, false); err == nil {
		t.Fatal("a key is there that nobody made")
	}
	key, err := tpm.AttestationKey(t.Context(), handle, true)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := tpm.AttestationKey(t.Context(), handle, true); err != nil || !again.Equal(key) {
		t.Fatalf("another key the second time, %v", err)
	}
	digest := eventlog.SHA256.Sum([]byte("event"))
	if err := tpm.Extend(t.Context(), 14, eventlog.SHA256, digest); err != nil {
		t.Fatal(err)
	}
	for _, bank := range []eventlog.Algorithm{eventlog.SHA256, eventlog.SHA384} {
		message, signature, values, err := tpm.Quote(t.Context(), handle, bank, []byte("nonce"))
		if err != nil {
			t.Fatal(err)
		}
		bare, ok := bytes.CutPrefix(signature, []byte{0, 0x14, 0, 0x0b, 1, 0}) // RSASSA, SHA-256, 256 bytes
		if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, eventlog.SHA256.Sum(message), bare); err != nil || !ok {
			t.Errorf("signature %x: %v", signature, err)
		}
		if !bytes.Contains(message, eventlog.SHA256.Sum(values...)) || !bytes.Contains(message, []byte("nonce")) {
			t.Errorf("%s: the message is about something else", bank)
		}
		want := make([]byte, bank.Size())
		if bank == eventlog.SHA256 {
			want = eventlog.SHA256.Sum(want, digest)
		}
		if !bytes.Equal(values[14], want) {
			t.Errorf("%s: PCR 14 is %x, want %x", bank, values[14], want)
		}
	}
}

// Registers that change between reading and quoting are read again.
func TestQuoteOfMovingRegisters(t *testing.T) {
	open := swtpmtest.Start(t)
	if _, err := New(open).AttestationKey(t.Context(), handle, true); err != nil {
		t.Fatal(err)
	}
	for moves, want := range map[int]string{quoteAttempts - 1: "", quoteAttempts: "faster than"} {
		left := moves
		moving := New(func() (transport.TPMCloser, error) {
			dev, err := open()
			return &movingTPM{TPMCloser: dev, left: &left}, err
		})
		message, _, values, err := moving.Quote(t.Context(), handle, eventlog.SHA256, []byte("nonce"))
		if want == "" && (err != nil || !bytes.Contains(message, eventlog.SHA256.Sum(values...))) ||
			want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%d moves: %v", moves, err)
		}
	}
}

// movingTPM extends a register ahead of a quote, as another program may.
type movingTPM struct {
	transport.TPMCloser
	left *int
}

func (m *movingTPM) Send(cmd []byte) ([]byte, error) {
	if code := cmd[8:10]; code[0] == 1 && code[1] == 0x58 && *m.left > 0 { // TPM2_Quote
		*m.left--
		_, err := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: 14, Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
		}.Execute(m.TPMCloser)
		if err != nil {
			return nil, err
		}
	}
	return m.TPMCloser.Send(cmd)
}

// A key that signs anything could sign a quote that no TPM made.
func TestOnlyAttestationKeys(t *testing.T) {
	open := swtpmtest.Start(t)
	template := akTemplate
	template.ObjectAttributes.Restricted = false
	persist(t, open, handle, template)
	persist(t, open, handle+1, tpm2.RSASRKTemplate)
	persist(t, open, handle+2, tpm2.ECCSRKTemplate)
	for h, what := range map[uint32]string{handle: "an unrestricted key", handle + 1: "a storage key", handle + 2: "an ECC key"} {
		if _, err := New(open).AttestationKey(t.Context(), h, true); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

func persist(t *testing.T, open Opener, at uint32, template tpm2.TPMTPublic) {
	t.Helper()
	dev, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: ownerAuth(), InPublic: tpm2.New2B(template)}.Execute(dev)
	if err != nil {
		t.Fatal(err)
	}
	object := &tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}
	if _, err := (tpm2.EvictControl{Auth: ownerAuth(), ObjectHandle: object, PersistentHandle: tpm2.TPMHandle(at)}).Execute(dev); err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: rsp.ObjectHandle}).Execute(dev); err != nil {
		t.Fatal(err)
	}
}

func TestExtendRefusals(t *testing.T) {
	tpm := soft(t)
	for name, f := range map[string]func() error{
		"PCR 24":           func() error { return tpm.Extend(t.Context(), 24, eventlog.SHA256, make([]byte, 32)) },
		"PCR -1":           func() error { return tpm.Extend(t.Context(), -1, eventlog.SHA256, make([]byte, 32)) },
		"long digest":      func() error { return tpm.Extend(t.Context(), 14, eventlog.SHA256, make([]byte, 48)) },
		"PCR 17, as an OS": func() error { return tpm.Extend(t.Context(), 17, eventlog.SHA256, make([]byte, 32)) },
		"no such bank":     func() error { _, err := tpm.ReadPCRs(t.Context(), eventlog.SM3); return err },
	} {
		if err := f(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNV(t *testing.T) {
	tpm := soft(t)
	const index = 0x01400002
	if _, err := tpm.ReadNV(t.Context(), index); !errors.Is(err, ErrNoIndex) {
		t.Fatalf("got %v", err)
	}
	// Defined, written again, and replaced by one of another size.
	for _, data := range [][]byte{bytes.Repeat([]byte{1}, 64), bytes.Repeat([]byte{2}, 64), bytes.Repeat([]byte{3}, 512)} {
		if err := tpm.WriteNV(t.Context(), index, data); err != nil {
			t.Fatal(err)
		}
		if got, err := tpm.ReadNV(t.Context(), index); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%x, %v", got, err)
		}
	}
	for _, data := range [][]byte{nil, make([]byte, 513)} {
		if err := tpm.WriteNV(t.Context(), index, data); err == nil {
			t.Errorf("%d bytes are written", len(data))
		}
	}
}

// Longer than one command carries.
func TestLargeNV(t *testing.T) {
	open := swtpmtest.Start(t)
	dev, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if err := defineIndex(dev, 0x01400001, 1300); err != nil {
		t.Fatal(err)
	}
	nv, err := openIndex(dev, 0x01400001)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("HCLA "), 260)
	for at := 0; at < len(want); at += nvChunk {
		part := want[at:min(at+nvChunk, len(want))]
		if _, err := (tpm2.NVWrite{AuthHandle: nv.auth(false), NVIndex: nv.named, Data: tpm2.TPM2BMaxNVBuffer{Buffer: part}, Offset: uint16(at)}).Execute(dev); err != nil {
			t.Fatal(err)
		}
		if nv, err = openIndex(dev, 0x01400001); err != nil { // its name changes when it is written
			t.Fatal(err)
		}
	}
	if got, err := New(open).ReadNV(t.Context(), 0x01400001); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestConcurrentUse(t *testing.T) {
	tpm := soft(t)
	if _, err := tpm.AttestationKey(t.Context(), handle, true); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, _, _, err := tpm.Quote(t.Context(), handle, eventlog.SHA256, []byte("nonce")); err != nil {
				t.Error(err)
			}
			if err := tpm.Extend(t.Context(), 14, eventlog.SHA256, make([]byte, 32)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// answers is a device that says the same to every command.
type answers []byte

func (a answers) Send([]byte) ([]byte, error) { return bytes.Clone(a), nil }
func (answers) Close() error                  { return nil }

// A vTPM is the host's: what it answers must not bring the agent down.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0})
	f.Add([]byte{0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x8b})
	f.Add(append([]byte{0x80, 1, 0, 0, 0, 0x1e, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0, 0, 0, 0, 0, 8}, 0, 0))
	f.Fuzz(func(t *testing.T, raw []byte) {
		tpm := New(func() (transport.TPMCloser, error) { return answers(raw), nil })
		_ = tpm.Present(t.Context())
		if v, err := tpm.ReadPCRs(t.Context(), eventlog.SHA256); err == nil && (len(v) != PCRs || len(v[23]) != 32) {
			t.Fatal("registers of another size")
		}
		if m, _, _, err := tpm.Quote(t.Context(), handle, eventlog.SHA256, []byte("nonce")); err == nil && len(m) == 0 {
			t.Fatal("a quote of nothing")
		}
		_, _ = tpm.AttestationKey(t.Context(), handle, true)
		_, _, _ = tpm.Endorsement(t.Context(), "")
		for _, kind := range ek.Templates() {
			_, _ = tpm.Activate(t.Context(), handle, kind, []byte("credential"), []byte("secret"))
		}
		_, _ = tpm.ReadNV(t.Context(), 0x01400001)
		_ = tpm.WriteNV(t.Context(), 0x01400002, []byte("data"))
	})
}

// late is a TPM whose first commands the kernel gave up waiting for.
type late struct {
	transport.TPMCloser

	left *int
}

func (l late) Send(command []byte) ([]byte, error) {
	if *l.left--; *l.left >= 0 {
		return nil, &os.PathError{Op: "write", Path: "/dev/tpmrm0", Err: syscall.ETIME}
	}
	return l.TPMCloser.Send(command)
}

// A TPM that is slow to answer while its host is busy is there; one that never
// answers is not.
func TestPresentWhenBusy(t *testing.T) {
	open := swtpmtest.Start(t)
	for lost, want := range map[int]error{2: nil, 3: syscall.ETIME} {
		left := lost
		err := New(func() (transport.TPMCloser, error) {
			tpm, err := open()
			return late{tpm, &left}, err
		}).Present(t.Context())
		if !errors.Is(err, want) {
			t.Errorf("after %d that were lost: %v", lost, err)
		}
	}
}
