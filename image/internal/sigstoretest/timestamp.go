package sigstoretest

import (
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"
)

var (
	oidSignedData  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTSTInfo     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidContentType = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidDigest      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningCert = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	algSHA256      = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}}
	algECDSA       = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
)

type tstInfo struct {
	Version int
	Policy  asn1.ObjectIdentifier
	Imprint struct {
		Algorithm pkix.AlgorithmIdentifier
		Hash      []byte
	}
	Serial *big.Int
	Time   time.Time `asn1:"generalized"`
}

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values []any `asn1:"set"`
}

type signerInfo struct {
	Version int
	ID      struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	Digest     pkix.AlgorithmIdentifier
	Attributes asn1.RawValue
	Algorithm  pkix.AlgorithmIdentifier
	Signature  []byte
}

type signedData struct {
	Version int
	Digests []pkix.AlgorithmIdentifier `asn1:"set"`
	Content struct {
		Type asn1.ObjectIdentifier
		Data []byte `asn1:"explicit,tag:0"`
	}
	Signers []signerInfo `asn1:"set"`
}

// Timestamp is the answer of the authority for timestamps (RFC 3161) about a
// signature. Its certificate is not in it: verifiers have it.
func (w *World) Timestamp(sig []byte, at time.Time) []byte {
	w.t.Helper()
	info := tstInfo{Version: 1, Policy: asn1.ObjectIdentifier{1, 2, 3}, Serial: big.NewInt(9), Time: at.UTC()}
	sum := sha256.Sum256(sig)
	info.Imprint.Algorithm, info.Imprint.Hash = algSHA256, sum[:]
	content := w.der(info)

	digest, cert := sha256.Sum256(content), sha256.Sum256(w.stamper.cert.Raw)
	var signed []attribute
	signed = append(signed, attribute{oidContentType, []any{oidTSTInfo}}, attribute{oidDigest, []any{digest[:]}},
		attribute{oidSigningCert, []any{struct{ Certs []struct{ Hash []byte } }{[]struct{ Hash []byte }{{cert[:]}}}}})
	set := w.derSet(signed)

	s := signerInfo{Version: 1, Digest: algSHA256, Algorithm: algECDSA, Signature: Sign(w.t, w.stamper.key, set)}
	s.ID.Issuer, s.ID.Serial = asn1.RawValue{FullBytes: w.stamper.cert.RawIssuer}, w.stamper.cert.SerialNumber
	implicit := append([]byte{0xa0}, set[1:]...) // [0] IMPLICIT, the same contents
	s.Attributes = asn1.RawValue{FullBytes: implicit}
	d := signedData{Version: 3, Digests: []pkix.AlgorithmIdentifier{algSHA256}, Signers: []signerInfo{s}}
	d.Content.Type, d.Content.Data = oidTSTInfo, content
	return w.der(struct {
		Status struct{ Status int }
		Token  struct {
			Type asn1.ObjectIdentifier
			Data signedData `asn1:"explicit,tag:0"`
		}
	}{Token: struct {
		Type asn1.ObjectIdentifier
		Data signedData `asn1:"explicit,tag:0"`
	}{oidSignedData, d}})
}

func (w *World) der(v any) []byte {
	w.t.Helper()
	b, err := asn1.Marshal(v)
	w.must(err)
	return b
}

func (w *World) derSet(v any) []byte {
	w.t.Helper()
	b, err := asn1.MarshalWithParams(v, "set")
	w.must(err)
	return b
}
