package tpm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// labTime is when everything in a lab happens.
var labTime = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// rsaKey is slow to make, so that all labs share one.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, minRSABits)
	if err != nil {
		panic(err)
	}
	return k
})

var (
	challenge = make48(0xc1)
	document  = eventlog.SHA256.Sum([]byte("init-data"))
	launch    = Launch{Image: []byte("agent"), CommandLine: "quiet ä", InitDataDigest: document}
)

func make48(b byte) []byte {
	out := make([]byte, 48)
	for i := range out {
		out[i] = b + byte(i)
	}
	return out
}

// lab is a manufacturer and one guest with a TPM.
type lab struct {
	t      *testing.T
	vendor *vendor
	device *Device
	ak     crypto.Signer
	cert   *x509.Certificate
	log    *eventlog.Log
}

func newLab(t *testing.T, ak crypto.Signer) *lab {
	t.Helper()
	l := &lab{t: t, ak: ak}
	var err error
	l.vendor, err = newVendor(labTime)
	l.must(err)
	l.cert, err = l.vendor.certify(ak.Public(), oidAKCertificate, labTime)
	l.must(err)
	l.device, err = NewDevice(ak, func() time.Time { return labTime })
	l.must(err)
	l.log, err = launch.Log()
	l.must(err)
	l.must(l.device.ExtendLog(l.log))
	l.must(l.device.Extend(Bank, InitDataPCR, document))
	return l
}

func ecdsaKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// quote makes evidence over the extra data, with another selection if one is
// given.
func (l *lab) quote(extra []byte, selection ...Selection) *Evidence {
	l.t.Helper()
	if selection == nil {
		selection = []Selection{AllPCRs(Bank)}
	}
	message, signature, values, err := l.device.Quote(extra, selection...)
	l.must(err)
	quote, err := ParseQuote(message)
	l.must(err)
	public, err := x509.MarshalPKIXPublicKey(l.ak.Public())
	l.must(err)
	return &Evidence{
		Message: message, Quote: quote, Signature: signature, PCRs: values, AKPublic: public,
		AKCertificates: [][]byte{l.cert.Raw}, EventLog: l.log.Marshal(),
	}
}

// resign signs the quote again after a change of it.
func (l *lab) resign(e *Evidence) {
	l.t.Helper()
	e.Message = e.Quote.Marshal()
	var err error
	e.Signature, err = l.device.sign(e.Message)
	l.must(err)
}

func (l *lab) config() VerifierConfig {
	return VerifierConfig{
		UnsafeSimulatedRoots: []Authority{{Name: "lab", Bundle: l.vendor.bundle()}},
		Now:                  func() time.Time { return labTime },
	}
}

func (l *lab) expected() measure.Expected {
	return measure.Expected{ReportData: measure.BoundTo(challenge), InitData: measure.BoundTo(document)}
}

// verify judges by a verifier that has seen nothing, and holds against it what
// one says that remembers the machine from good evidence.
func (l *lab) verify(c VerifierConfig, e *Evidence, want measure.Expected) (measure.Verdict, error) {
	l.t.Helper()
	ev, err := e.Wire()
	l.must(err)
	good := ev // where the TPM is not the lab's
	if l.device != nil {
		good, err = l.quote(challenge[:32]).Wire()
		l.must(err)
	}
	fresh, err := NewVerifier(c)
	l.must(err)
	warm, err := NewVerifier(c)
	l.must(err)
	got, refused := fresh.Verify(context.Background(), ev, want)
	if n := fresh.machines.Len(); refused != nil && n != 0 {
		l.t.Errorf("%d machines are remembered by refused evidence", n)
	}
	if _, err := warm.Verify(context.Background(), good, l.expected()); err == nil && warm.machines.Len() != 1 {
		l.t.Error("good evidence is not remembered")
	}
	for range 2 {
		again, err := warm.Verify(context.Background(), ev, want)
		if !reflect.DeepEqual(got, again) || fmt.Sprint(err) != fmt.Sprint(refused) {
			l.t.Errorf("who remembers the machine says %v and %+v, not %v and %+v", err, again, refused, got)
		}
	}
	return got, refused
}

func publicPEM(t *testing.T, key crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPublicKey, Bytes: der})
}
