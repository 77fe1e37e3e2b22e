package sigstoretest

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// An Entry is one of the log's, with its proofs, open to any change.
type Entry struct {
	LogID      []byte
	Index      int64
	Integrated int64
	Body       []byte
	SET        []byte
	Proof      *Proof
}

// A Proof is an inclusion proof with its checkpoint.
type Proof struct {
	Index, Size int64
	Root        []byte
	Path        [][]byte
	Checkpoint  string
}

// Hashed is the body of an entry for a signature over a message.
func (w *World) Hashed(message, sig, verifier []byte) []byte {
	sum := sha256.Sum256(message)
	return w.body("hashedrekord", "0.0.1", map[string]any{
		"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}},
		"signature": map[string]any{"content": sig, "publicKey": map[string]any{"content": verifier}},
	})
}

// Enveloped is the body of an entry for a DSSE envelope.
func (w *World) Enveloped(payload, sig, verifier []byte) []byte {
	sum := sha256.Sum256(payload)
	return w.body("dsse", "0.0.1", map[string]any{
		"envelopeHash": map[string]any{"algorithm": "sha256", "value": "00"},
		"payloadHash":  map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])},
		"signatures":   []any{map[string]any{"signature": sig, "verifier": verifier}},
	})
}

// Hashed2 is [World.Hashed] in the second version of Rekor, which keeps
// envelopes so as well: by what their signature covers.
func (w *World) Hashed2(message, sig []byte, cert *x509.Certificate) []byte {
	sum := sha256.Sum256(message)
	return w.body("hashedrekord", "0.0.2", map[string]any{"hashedRekordV002": map[string]any{
		"data": map[string]any{"algorithm": "SHA2_256", "digest": sum[:]},
		"signature": map[string]any{"content": sig, "verifier": map[string]any{
			"x509Certificate": map[string]any{"rawBytes": cert.Raw}, "keyDetails": "PKIX_ECDSA_P256_SHA_256",
		}},
	}})
}

// Enveloped2 is [World.Enveloped] in the second version of Rekor.
func (w *World) Enveloped2(payload, sig []byte, cert *x509.Certificate) []byte {
	sum := sha256.Sum256(payload)
	return w.body("dsse", "0.0.2", map[string]any{"dsseV002": map[string]any{
		"payloadHash": map[string]any{"algorithm": "SHA2_256", "digest": sum[:]},
		"signatures":  []any{map[string]any{"content": sig, "verifier": map[string]any{"x509Certificate": map[string]any{"rawBytes": cert.Raw}}}},
	}})
}

func (w *World) body(kind, version string, spec any) []byte {
	w.t.Helper()
	raw, err := json.Marshal(map[string]any{"apiVersion": version, "kind": kind, "spec": spec})
	w.must(err)
	return raw
}

// Record adds an entry to the log, and one more after it, and proves it.
func (w *World) Record(body []byte, at time.Time) Entry {
	w.t.Helper()
	i := len(w.leaves)
	w.leaves = append(w.leaves, body, []byte("the next one"))
	e := Entry{LogID: w.id(w.log.Public()), Index: int64(i) + 1000, Integrated: at.Unix(), Body: body}
	w.Promise(&e, w.log)
	e.Proof = &Proof{Index: int64(i), Size: int64(len(w.leaves)), Root: treeHash(w.leaves), Path: path(i, w.leaves)}
	w.Checkpoint(e.Proof, w.log)
	return e
}

// Promise signs the entry's timestamp (SET) with the given key.
func (w *World) Promise(e *Entry, key *ecdsa.PrivateKey) {
	w.t.Helper()
	e.SET = Sign(w.t, key, fmt.Appendf(nil, `{"body":%q,"integratedTime":%d,"logID":"%x","logIndex":%d}`,
		base64.StdEncoding.EncodeToString(e.Body), e.Integrated, e.LogID, e.Index))
}

// Checkpoint signs the tree of a proof with the given key.
func (w *World) Checkpoint(p *Proof, key *ecdsa.PrivateKey) {
	w.t.Helper()
	text := fmt.Sprintf("log.example - 77\n%d\n%s\n", p.Size, base64.StdEncoding.EncodeToString(p.Root))
	sig := slices.Concat(w.id(w.log.Public())[:4], Sign(w.t, key, []byte(text)))
	p.Checkpoint = text + "\n\u2014 log.example " + base64.StdEncoding.EncodeToString(sig) + "\n"
}

// JSON is the entry in a bundle.
func (e Entry) JSON() map[string]any {
	var kind struct{ Kind, APIVersion string }
	_ = json.Unmarshal(e.Body, &kind) // a body of another shape has no kind
	doc := map[string]any{
		"logIndex": fmt.Sprint(e.Index), "logId": map[string]any{"keyId": e.LogID}, "kindVersion": map[string]any{"kind": kind.Kind, "version": kind.APIVersion},
		"integratedTime": fmt.Sprint(e.Integrated), "canonicalizedBody": e.Body,
	}
	if e.SET != nil {
		doc["inclusionPromise"] = map[string]any{"signedEntryTimestamp": e.SET}
	}
	if p := e.Proof; p != nil {
		doc["inclusionProof"] = map[string]any{
			"logIndex": fmt.Sprint(p.Index), "treeSize": fmt.Sprint(p.Size), "rootHash": p.Root, "hashes": p.Path,
			"checkpoint": map[string]any{"envelope": p.Checkpoint},
		}
	}
	return doc
}

// Annotation is the entry in cosign's annotation of a signature.
func (e Entry) Annotation() string {
	raw, _ := json.Marshal(map[string]any{"SignedEntryTimestamp": e.SET, "Payload": map[string]any{ // texts and numbers always have a form
		"body": e.Body, "integratedTime": e.Integrated, "logIndex": e.Index, "logID": hex.EncodeToString(e.LogID),
	}})
	return string(raw)
}

// Material is the verificationMaterial of a bundle; a nil certificate says that
// a key signed.
func Material(cert *x509.Certificate, entries []Entry, stamps ...[]byte) map[string]any {
	doc := map[string]any{"publicKey": map[string]any{"hint": "h"}}
	if cert != nil {
		doc = map[string]any{"certificate": map[string]any{"rawBytes": cert.Raw}}
	}
	var list []any
	for _, e := range entries {
		list = append(list, e.JSON())
	}
	doc["tlogEntries"] = list
	var tokens []any
	for _, s := range stamps {
		tokens = append(tokens, map[string]any{"signedTimestamp": s})
	}
	doc["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": tokens}
	return doc
}

// treeHash and path are written as RFC 9162 (2.1.1 and 2.1.3.1) defines them,
// from the top down: the verifier goes the other way.
func treeHash(leaves [][]byte) []byte {
	if len(leaves) == 1 {
		sum := sha256.Sum256(append([]byte{0}, leaves[0]...))
		return sum[:]
	}
	k := split(len(leaves))
	sum := sha256.Sum256(append(append([]byte{1}, treeHash(leaves[:k])...), treeHash(leaves[k:])...))
	return sum[:]
}

func path(i int, leaves [][]byte) [][]byte {
	if len(leaves) == 1 {
		return nil
	}
	k := split(len(leaves))
	if i < k {
		return append(path(i, leaves[:k]), treeHash(leaves[k:]))
	}
	return append(path(i-k, leaves[k:]), treeHash(leaves[:k]))
}

// split is the largest power of two that is smaller than n.
func split(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}
