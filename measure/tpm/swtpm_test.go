package tpm

import (
	"crypto/x509"
	"encoding/base64"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev/swtpmtest"
)

// openSWTPM starts a TPM of another maker, in a process of its own.
func openSWTPM(t *testing.T) transport.TPM {
	t.Helper()
	device, err := swtpmtest.Start(t)()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = device.Close() })
	return device
}

// swtpmAK makes a restricted signing key.
func swtpmAK(t *testing.T, device transport.TPM, scheme tpm2.TPMTRSAScheme) (tpm2.NamedHandle, *tpm2.TPMTPublic) {
	t.Helper()
	template := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: 2048, Scheme: scheme}),
	}
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(device) })
	public, err := made.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, public
}

// quoteSWTPM makes evidence as the field's attester does.
func quoteSWTPM(t *testing.T, device transport.TPM, ak tpm2.NamedHandle, public *tpm2.TPMTPublic, extra []byte) *Evidence {
	t.Helper()
	bank := tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: []byte{0xff, 0xff, 0xff}}}}
	answer, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: ak.Handle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: extra}, InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, PCRSelect: bank,
	}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
	e := &Evidence{Message: answer.Quoted.Bytes()}
	if e.Quote, err = ParseQuote(e.Message); err != nil {
		t.Fatal(err)
	}
	if e.Signature, err = ParseSignature(tpm2.Marshal(answer.Signature)); err != nil {
		t.Fatal(err)
	}
	for i := range PCRs { // a TPM hands out eight at a time
		one := []byte{0, 0, 0}
		one[i/8] = 1 << (i % 8)
		read, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: one}}}}.Execute(device)
		if err != nil {
			t.Fatal(err)
		}
		e.PCRs = append(e.PCRs, read.PCRValues.Digests[0].Buffer)
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		t.Fatal(err)
	}
	if e.AKPublic, err = x509.MarshalPKIXPublicKey(key); err != nil {
		t.Fatal(err)
	}
	return e
}

func extendSWTPM(t *testing.T, device transport.TPM, pcr int, digest []byte) {
	t.Helper()
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)}, //nolint:gosec // below 24
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest}}},
	}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
}

func TestSWTPM(t *testing.T) {
	device := openSWTPM(t)
	log, err := launch.Log()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range log.Events {
		extendSWTPM(t, device, e.Index, e.Digests[Bank])
	}
	extendSWTPM(t, device, InitDataPCR, document)
	for name, scheme := range map[string]tpm2.TPMTRSAScheme{
		"RSASSA": {Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})},
		"RSAPSS": {Scheme: tpm2.TPMAlgRSAPSS, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSAPSS, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: tpm2.TPMAlgSHA256})},
	} {
		t.Run(name, func(t *testing.T) {
			ak, public := swtpmAK(t, device, scheme)
			e := quoteSWTPM(t, device, ak, public, challenge[:32])
			e.EventLog = log.Marshal()
			l := &lab{t: t}
			want := measure.Expected{ReportData: measure.BoundTo(challenge), InitData: measure.BoundTo(document)}
			got, err := l.verify(VerifierConfig{Enrolled: []EnrolledKeys{{"swtpm", e.AKPublic}}}, e, want)
			if err != nil {
				t.Fatal(err)
			}
			if got.Claims["ak_public"] != base64.StdEncoding.EncodeToString(e.AKPublic) || got.Check(measure.CheckEventLog).Outcome != measure.Passed {
				t.Errorf("%+v", got)
			}
			if _, err := l.verify(VerifierConfig{}, e, want); err == nil {
				t.Error("a key that nobody enrolled is accepted")
			}
			// Whoever may use the TPM can reset PCR 16 and let it be quoted.
			e.PCRs[11] = make([]byte, 32)
			if _, err := l.verify(VerifierConfig{Enrolled: []EnrolledKeys{{"swtpm", e.AKPublic}}}, e, want); err == nil {
				t.Error("a made-up PCR is accepted")
			}
		})
	}
}
