package sigstore

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

const (
	maxEntries = 8  // log entries or timestamps of one signature
	maxChain   = 8  // certificates of one signature
	maxPath    = 64 // hashes of an inclusion proof: a log has fewer than 2^64 entries
)

// A Material is what a signature brings for its verification: unverified.
type Material struct {
	Chain      []*x509.Certificate // the signer's first; none: signed with a key
	Entries    []Entry
	Timestamps [][]byte // responses or tokens (RFC 3161), DER
}

// An Entry is what a transparency log recorded, and its proofs of that.
type Entry struct {
	LogID      []byte
	Index      int64  // in all of the log
	Integrated int64  // seconds of the epoch; 0 where the log keeps no time
	Body       []byte // canonical JSON
	Promise    []byte // signed entry timestamp (SET); nil: none
	Proof      *Proof // nil: none
}

// A Proof shows that an entry is in a tree (RFC 9162, section 2.1.3), and the
// checkpoint that the tree is the log's.
type Proof struct {
	Index, Size int64
	Root        []byte
	Path        [][]byte
	Checkpoint  string // a signed note
}

// number reads int64 as protocol buffers write it in JSON: as text, or plain.
type number int64

func (n *number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64)
	if err != nil || v < 0 {
		return fmt.Errorf("%.24q is no count", b)
	}
	*n = number(v)
	return nil
}

type entryDoc struct {
	Index number `json:"logIndex"`
	LogID struct {
		Key []byte `json:"keyId"`
	} `json:"logId"`
	Integrated number `json:"integratedTime"`
	Promise    *struct {
		SET []byte `json:"signedEntryTimestamp"`
	} `json:"inclusionPromise"`
	Proof *struct {
		Index      number   `json:"logIndex"`
		Size       number   `json:"treeSize"`
		Root       []byte   `json:"rootHash"`
		Path       [][]byte `json:"hashes"`
		Checkpoint struct {
			Envelope string `json:"envelope"`
		} `json:"checkpoint"`
	} `json:"inclusionProof"`
	Body []byte `json:"canonicalizedBody"`
}

type certificateDoc struct {
	Raw []byte `json:"rawBytes"`
}

// TakeMaterial reads the verificationMaterial of a bundle of version 0.3; keyed
// is true if it names a public key. That key's hint proves nothing.
func TakeMaterial(doc *strictjson.Object) (m Material, hint string, keyed bool, err error) {
	var key *struct {
		Hint string `json:"hint"`
	}
	var leaf *certificateDoc
	var chain *struct {
		Certificates []certificateDoc `json:"certificates"`
	}
	var stamps struct {
		Tokens []struct {
			Raw []byte `json:"signedTimestamp"`
		} `json:"rfc3161Timestamps"`
	}
	var list json.RawMessage
	for _, member := range []struct {
		name string
		v    any
	}{
		{"publicKey", &key}, {"certificate", &leaf}, {"x509CertificateChain", &chain},
		{"tlogEntries", &list}, {"timestampVerificationData", &stamps},
	} {
		if _, err := doc.Take(member.name, member.v); err != nil {
			return m, "", false, err
		}
	}
	var certs []certificateDoc
	if leaf != nil {
		certs = append(certs, *leaf)
	}
	if chain != nil {
		certs = append(certs, chain.Certificates...)
	}
	if (key != nil) == (len(certs) > 0) || leaf != nil && chain != nil {
		return m, "", false, errors.New("exactly one of publicKey and certificate is needed")
	}
	entries, err := strictjson.List(list, maxEntries)
	if err != nil {
		return m, "", false, fmt.Errorf("log entries: %w", err)
	}
	if len(certs) > maxChain || len(stamps.Tokens) > maxEntries {
		return m, "", false, fmt.Errorf("%d certificates, %d timestamps: too many", len(certs), len(stamps.Tokens))
	}
	for _, c := range certs {
		cert, err := x509.ParseCertificate(c.Raw)
		if err != nil {
			return m, "", false, fmt.Errorf("certificate: %w", err)
		}
		m.Chain = append(m.Chain, cert)
	}
	for _, raw := range entries {
		var e entryDoc
		if err := json.Unmarshal(raw, &e); err != nil {
			return m, "", false, fmt.Errorf("log entry: %w", err)
		}
		m.Entries = append(m.Entries, e.entry())
	}
	for _, s := range stamps.Tokens {
		m.Timestamps = append(m.Timestamps, s.Raw)
	}
	if key != nil {
		hint = key.Hint
	}
	return m, hint, key != nil, doc.Done()
}

func (d entryDoc) entry() Entry {
	e := Entry{LogID: d.LogID.Key, Index: int64(d.Index), Integrated: int64(d.Integrated), Body: d.Body}
	if d.Promise != nil {
		e.Promise = d.Promise.SET
	}
	if p := d.Proof; p != nil {
		e.Proof = &Proof{Index: int64(p.Index), Size: int64(p.Size), Root: p.Root, Path: p.Path, Checkpoint: p.Checkpoint.Envelope}
	}
	return e
}

// The annotations that cosign puts beside a signature which is no bundle.
const (
	AnnotationBundle      = "dev.sigstore.cosign/bundle"
	AnnotationCertificate = "dev.sigstore.cosign/certificate"
	AnnotationChain       = "dev.sigstore.cosign/chain"
	AnnotationTimestamp   = "dev.sigstore.cosign/rfc3161timestamp"

	maxAnnotation = 64 << 10 // bytes
)

// AnnotatedMaterial reads what stands in the annotations of a layer. A layer
// without such annotations has an empty material.
func AnnotatedMaterial(annotations map[string]string) (Material, error) {
	var m Material
	for _, name := range []string{AnnotationCertificate, AnnotationChain} {
		text := annotations[name]
		if len(text) > maxAnnotation {
			return m, fmt.Errorf("%s: %d bytes, at most %d are read", name, len(text), maxAnnotation)
		}
		certs, err := ParseCertificates([]byte(text))
		if err != nil {
			return m, fmt.Errorf("%s: %w", name, err)
		}
		if len(certs) > maxChain {
			return m, fmt.Errorf("%s: %d certificates", name, len(certs))
		}
		m.Chain = append(m.Chain, certs...)
	}
	if annotations[AnnotationCertificate] == "" && len(m.Chain) > 0 {
		return m, errors.New("a chain without a certificate")
	}
	if text := annotations[AnnotationBundle]; text != "" {
		e, err := annotatedEntry([]byte(text))
		if err != nil {
			return m, fmt.Errorf("%s: %w", AnnotationBundle, err)
		}
		m.Entries = []Entry{e}
	}
	if text := annotations[AnnotationTimestamp]; text != "" {
		var doc struct {
			Raw []byte `json:"SignedRFC3161Timestamp"`
		}
		if _, err := strictjson.Parse([]byte(text)); err != nil {
			return m, fmt.Errorf("%s: %w", AnnotationTimestamp, err)
		}
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			return m, fmt.Errorf("%s: %w", AnnotationTimestamp, err)
		}
		m.Timestamps = [][]byte{doc.Raw}
	}
	return m, nil
}

// annotatedEntry reads the log entry beside a signature: a promise, no proof.
func annotatedEntry(raw []byte) (Entry, error) {
	if len(raw) > maxAnnotation {
		return Entry{}, fmt.Errorf("%d bytes, at most %d are read", len(raw), maxAnnotation)
	}
	if _, err := strictjson.Parse(raw); err != nil {
		return Entry{}, err
	}
	var doc struct {
		SET     []byte `json:"SignedEntryTimestamp"`
		Payload struct {
			Body       string `json:"body"`
			Integrated number `json:"integratedTime"`
			Index      number `json:"logIndex"`
			LogID      string `json:"logID"`
		} `json:"Payload"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return Entry{}, err
	}
	id, err := hex.DecodeString(doc.Payload.LogID)
	if err != nil {
		return Entry{}, errors.New("the log's ID is not hexadecimal")
	}
	body, err := base64.StdEncoding.DecodeString(doc.Payload.Body)
	if err != nil {
		return Entry{}, errors.New("the body is not base64")
	}
	return Entry{LogID: id, Index: int64(doc.Payload.Index), Integrated: int64(doc.Payload.Integrated), Body: body, Promise: doc.SET}, nil
}
