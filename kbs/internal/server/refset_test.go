package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/measure/refvalue"
)

// A document's values are in force for as long as it is registered, and its
// signer and hash stand in the log.
func TestRefSets(t *testing.T) {
	s := newStage(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
	doc := refvalue.Document{ID: "guest-1", Values: []refvalue.Value{{Name: "digest", Value: json.RawMessage(`["aa"]`)}}, NotAfter: time.Now().AddDate(1, 0, 0)}
	signed, err := doc.Sign(key, "ci")
	if err != nil {
		t.Fatal(err)
	}
	if a := s.admin(http.MethodPost, api.PathRefSets, signed); a.status != http.StatusForbidden {
		t.Fatalf("an unknown signer: %d %s", a.status, a.body)
	}
	s.putJSON(api.PathSigners+"/ci", api.Signer{PublicKey: text, Prefixes: []string{"dig"}})
	var signer api.Signer
	s.get(api.PathSigners+"/ci", &signer)
	if signer.PublicKey != text || signer.Version != 1 {
		t.Errorf("signer %+v", signer)
	}
	s.must(http.MethodGet, api.PathSigners, nil)
	var set api.RefSet
	if err := json.Unmarshal(s.must(http.MethodPost, api.PathRefSets, signed), &set); err != nil || set.Signer != "ci" || set.Version != 1 {
		t.Fatalf("%+v, %v", set, err)
	}
	s.get(api.PathRefSets+"/guest-1", &set)
	s.must(http.MethodGet, api.PathRefSets+"?limit=1", nil)
	var v api.RefValue
	s.get(api.PathRefValues+"/digest", &v)
	if string(v.Value) != `["aa"]` || len(v.Sources) != 1 || v.Sources[0].Signer != "ci" || !v.InForce {
		t.Errorf("value %+v", v)
	}
	entries := s.entries()
	last := entries[len(entries)-1]
	if last.Kind != api.AuditRefSetPut || last.Details["signer"] != "ci" || last.Details["sha256"] != set.SHA256 {
		t.Errorf("entry %+v", last)
	}
	s.must(http.MethodDelete, api.PathRefSets+"/guest-1", nil)
	if a := s.admin(http.MethodGet, api.PathRefValues+"/digest", nil); a.status != http.StatusNotFound {
		t.Errorf("a withdrawn value: %d %s", a.status, a.body)
	}
	s.must(http.MethodDelete, api.PathSigners+"/ci", nil)
}

func (s *stage) get(path string, into any) {
	s.t.Helper()
	if err := json.Unmarshal(s.must(http.MethodGet, path, nil), into); err != nil {
		s.t.Fatal(err)
	}
}
