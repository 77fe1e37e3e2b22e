package sigstore

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

const (
	// MaxRoot is the largest trusted root that is read, in bytes.
	MaxRoot = 1 << 20

	maxTrusted = 64 // logs or authorities of one kind in a root

	// The versions of trusted_root.json (sigstore protobuf-specs, TrustedRoot).
	mediaTypeRoot  = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
	mediaTypeRoot2 = "application/vnd.dev.sigstore.trustedroot.v0.2+json"
)

// A Root says whose certificates, log entries and timestamps count. It is
// immutable.
type Root struct {
	authorities []authority // Fulcio
	stampers    []authority // timestamps (RFC 3161)
	logs        []log       // Rekor
	ctLogs      []log       // certificate transparency
}

// An authority issues certificates. The chain ends in what is trusted.
type authority struct {
	chain []*x509.Certificate
	valid period
}

// A log signs what it has recorded.
type log struct {
	id    []byte // of the key; its first four bytes are the hint in checkpoints
	key   crypto.PublicKey
	valid period
}

// period is a span of time; a zero end is none.
type period struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

func (p period) holds(t time.Time) bool {
	return !t.Before(p.Start) && (p.End.IsZero() || !t.After(p.End))
}

// counted reports whether the log's key counted at a time. Where none is known, the key
// must count for good.
func (l log) counted(at time.Time) bool {
	if at.IsZero() {
		return l.valid.End.IsZero()
	}
	return l.valid.holds(at)
}

// The members of trusted_root.json that are read.
type rootDoc struct {
	Logs        []logDoc       `json:"tlogs"`
	Authorities []authorityDoc `json:"certificateAuthorities"`
	CTLogs      []logDoc       `json:"ctlogs"`
	Stampers    []authorityDoc `json:"timestampAuthorities"`
}

type logDoc struct {
	Key struct {
		Raw   []byte  `json:"rawBytes"`
		Valid *period `json:"validFor"`
	} `json:"publicKey"`
	ID struct {
		Key []byte `json:"keyId"`
	} `json:"logId"`
}

type authorityDoc struct {
	Chain struct {
		Certificates []struct {
			Raw []byte `json:"rawBytes"`
		} `json:"certificates"`
	} `json:"certChain"`
	Valid *period `json:"validFor"`
}

// ParseRoot reads a trusted_root.json. One without a log is refused: nothing
// could be verified with it.
func ParseRoot(raw []byte) (*Root, error) {
	r, err := parseRoot(raw)
	if err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	return r, nil
}

func parseRoot(raw []byte) (*Root, error) {
	if len(raw) > MaxRoot {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(raw), MaxRoot)
	}
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return nil, err
	}
	var kind string
	if _, err := doc.Take("mediaType", &kind); err != nil {
		return nil, err
	}
	if kind != mediaTypeRoot && kind != mediaTypeRoot2 {
		return nil, fmt.Errorf("media type %.80q is not supported", kind)
	}
	var d rootDoc
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	r := &Root{}
	for _, part := range []struct {
		to   *[]log
		from []logDoc
	}{{&r.logs, d.Logs}, {&r.ctLogs, d.CTLogs}} {
		if *part.to, err = readAll(part.from, logDoc.read); err != nil {
			return nil, err
		}
	}
	for _, part := range []struct {
		to   *[]authority
		from []authorityDoc
	}{{&r.authorities, d.Authorities}, {&r.stampers, d.Stampers}} {
		if *part.to, err = readAll(part.from, authorityDoc.read); err != nil {
			return nil, err
		}
	}
	if len(r.logs) == 0 {
		return nil, errors.New("it names no transparency log")
	}
	return r, nil
}

func readAll[D, T any](docs []D, read func(D) (T, error)) ([]T, error) {
	if len(docs) > maxTrusted {
		return nil, fmt.Errorf("%d logs or authorities of one kind, at most %d are read", len(docs), maxTrusted)
	}
	var all []T
	for _, d := range docs {
		v, err := read(d)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

func (d logDoc) read() (log, error) {
	if d.Key.Valid == nil || d.Key.Valid.Start.IsZero() {
		return log{}, errors.New("a log's key without the time from which it counts")
	}
	if len(d.ID.Key) < 4 {
		return log{}, errors.New("a log without an ID")
	}
	key, err := x509.ParsePKIXPublicKey(d.Key.Raw)
	if err != nil {
		return log{}, fmt.Errorf("a log's key: %w", err)
	}
	return log{id: d.ID.Key, key: key, valid: *d.Key.Valid}, nil
}

func (d authorityDoc) read() (authority, error) {
	if d.Valid == nil || d.Valid.Start.IsZero() {
		return authority{}, errors.New("an authority without the time from which it counts")
	}
	a := authority{valid: *d.Valid}
	for _, c := range d.Chain.Certificates {
		cert, err := x509.ParseCertificate(c.Raw)
		if err != nil {
			return a, fmt.Errorf("an authority's certificate: %w", err)
		}
		a.chain = append(a.chain, cert)
	}
	if len(a.chain) == 0 {
		return a, errors.New("an authority without certificates")
	}
	return a, nil
}

// NewRoot makes a root of what containers-policy.json(5) names: public keys of
// Rekor, and CA certificates of Fulcio (PEM, one or more; empty where keys
// sign). It has no log of certificates.
func NewRoot(rekorKeys [][]byte, fulcio []byte) (*Root, error) {
	r := &Root{}
	for _, raw := range rekorKeys {
		block, rest := pem.Decode(raw)
		if block == nil || block.Type != "PUBLIC KEY" || strings.TrimSpace(string(rest)) != "" {
			return nil, errors.New("rekor's key is not one PEM block PUBLIC KEY")
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("rekor's key: %w", err)
		}
		id := sha256.Sum256(block.Bytes)
		r.logs = append(r.logs, log{id: id[:], key: key})
	}
	if len(r.logs) == 0 {
		return nil, errors.New("no key of rekor")
	}
	certs, err := ParseCertificates(fulcio)
	if err != nil {
		return nil, fmt.Errorf("fulcio's certificates: %w", err)
	}
	for _, c := range certs {
		r.authorities = append(r.authorities, authority{chain: []*x509.Certificate{c}})
	}
	return r, nil
}

// IssuesCertificates says whether the root names an authority at all.
func (r *Root) IssuesCertificates() bool { return len(r.authorities) > 0 }

// ParseCertificates reads PEM certificates and nothing else; none is no error.
func ParseCertificates(raw []byte) ([]*x509.Certificate, error) {
	if len(raw) > MaxRoot {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(raw), MaxRoot)
	}
	var certs []*x509.Certificate
	for rest := bytes.TrimSpace(raw); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		block, after := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" || len(certs) == maxTrusted {
			return nil, errors.New("want PEM blocks CERTIFICATE and nothing else")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs, rest = append(certs, c), after
	}
	return certs, nil
}

// find returns the log with the given ID.
func find(logs []log, id []byte) (log, bool) {
	i := slices.IndexFunc(logs, func(l log) bool { return bytes.Equal(l.id, id) })
	if i < 0 {
		return log{}, false
	}
	return logs[i], true
}
