package sigstore_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstoretest"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

func FuzzParseRoot(f *testing.F) {
	w := sigstoretest.New(f)
	f.Add(w.Root(nil))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[{"publicKey":{"validFor":{}},"logId":{}}]}`))
	m := sigstore.Material{Entries: []sigstore.Entry{{LogID: []byte("12345678"), Promise: []byte("x")}}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := sigstore.ParseRoot(raw)
		if err != nil {
			return
		}
		if _, err := r.Check(t.Context(), m, sigstore.Signed{}); err == nil {
			t.Fatal("a root vouches for nothing at all")
		}
	})
}

// Whatever a bundle says of logs, certificates and times, only what the world
// made holds: a material that passes has the entry's body as it was recorded.
func FuzzMaterial(f *testing.F) {
	w := sigstoretest.New(f)
	root, err := sigstore.ParseRoot(w.Root(nil))
	if err != nil {
		f.Fatal(err)
	}
	at := sigstoretest.Start.Add(time.Hour)
	cert, key := w.Certificate(sigstoretest.Wish{Issuer: "https://ci.example", Subject: "a@b.example", At: at})
	message := []byte("message")
	s := sigstore.Signed{Message: sigstore.Bytes(message), Key: key.Public(), Certificate: cert}
	s.Sig = sigstoretest.Sign(f, key, message)
	body := w.Hashed(message, s.Sig, sigstoretest.PEM(f, cert))
	entry := w.Record(body, at.Add(time.Minute))
	material := func(e sigstoretest.Entry, stamps ...[]byte) []byte {
		raw, err := json.Marshal(sigstoretest.Material(cert, []sigstoretest.Entry{e}, stamps...))
		if err != nil {
			f.Fatal(err)
		}
		return raw
	}
	f.Add(material(entry))
	f.Add(material(entry, w.Timestamp(s.Sig, at.Add(time.Minute))))
	entry.SET = nil
	f.Add(material(entry, w.Timestamp(s.Sig, at.Add(time.Minute))))
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc, err := strictjson.Parse(raw)
		if err != nil {
			return
		}
		m, _, _, err := sigstore.TakeMaterial(doc)
		if err != nil {
			return
		}
		res, err := root.Check(t.Context(), m, s)
		if err != nil {
			return
		}
		if res.Identity.Subject != "a@b.example" || res.Time.Before(at) || res.Time.After(at.Add(10*time.Minute)) {
			t.Fatalf("accepted as %+v", res)
		}
	})
}

func FuzzAnnotatedMaterial(f *testing.F) {
	w := sigstoretest.New(f)
	f.Add(w.Record([]byte("{}"), sigstoretest.Start).Annotation(), string(w.CA()))
	f.Fuzz(func(_ *testing.T, entry, chain string) {
		m, err := sigstore.AnnotatedMaterial(map[string]string{
			sigstore.AnnotationBundle: entry, sigstore.AnnotationCertificate: chain, sigstore.AnnotationTimestamp: entry,
		})
		if err == nil && len(m.Chain) > 0 {
			_, _ = sigstore.IdentityOf(m.Chain[0])
		}
	})
}
