package sigstore

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// oidSCTs is the extension with a certificate's timestamps of transparency logs
// (RFC 6962, section 3.3).
var oidSCTs = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}

// maxSCTs bounds the timestamps of one certificate.
const maxSCTs = 16

// checkSCT verifies that one of the root's logs promised to record the
// certificate.
func (r *Root) checkSCT(cert, issuer *x509.Certificate) error {
	i := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidSCTs) })
	if i < 0 {
		return errors.New("the certificate carries no timestamp of a transparency log (SCT)")
	}
	var list []byte
	if rest, err := asn1.Unmarshal(cert.Extensions[i].Value, &list); err != nil || len(rest) > 0 {
		return errors.New("the certificate's timestamps (SCT) cannot be read")
	}
	scts, err := splitSCTs(list)
	if err != nil {
		return err
	}
	tbs, err := withoutSCTs(cert.RawTBSCertificate)
	if err != nil {
		return err
	}
	for _, raw := range scts {
		s, err := parseSCT(raw)
		if err != nil {
			return err
		}
		l, ok := find(r.ctLogs, s.log)
		if ok && l.valid.holds(s.at) && verify(l.key, s.message(issuer, tbs), s.sig) {
			return nil
		}
	}
	return errors.New("no trusted log has promised to record the certificate (SCT)")
}

// sct is a SignedCertificateTimestamp (RFC 6962, section 3.2).
type sct struct {
	log        []byte
	at         time.Time
	stamp      uint64 // milliseconds of the epoch
	extensions []byte
	sig        []byte
}

// cut takes n bytes' worth of length, big-endian, and as many bytes.
func cut(b []byte, n int) (part, rest []byte, err error) {
	if len(b) < n {
		return nil, nil, errors.New("the certificate's timestamps (SCT) are cut off")
	}
	size := 0
	for _, c := range b[:n] {
		size = size<<8 | int(c)
	}
	if b = b[n:]; len(b) < size {
		return nil, nil, errors.New("the certificate's timestamps (SCT) are cut off")
	}
	return b[:size], b[size:], nil
}

func splitSCTs(list []byte) ([][]byte, error) {
	body, rest, err := cut(list, 2)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, errors.New("something after the certificate's timestamps (SCT)")
	}
	var all [][]byte
	for len(body) > 0 {
		var one []byte
		if one, body, err = cut(body, 2); err != nil {
			return nil, err
		}
		if all = append(all, one); len(all) > maxSCTs {
			return nil, fmt.Errorf("more than %d timestamps (SCT) in a certificate", maxSCTs)
		}
	}
	return all, nil
}

func parseSCT(b []byte) (sct, error) {
	const head = 1 + 32 + 8 // version, log, time
	if len(b) < head || b[0] != 0 {
		return sct{}, errors.New("a timestamp (SCT) of another version")
	}
	s := sct{log: b[1:33], stamp: binary.BigEndian.Uint64(b[33:])}
	s.at = time.UnixMilli(int64(s.stamp & (1<<63 - 1)))
	var err error
	if s.extensions, b, err = cut(b[head:], 2); err != nil {
		return s, err
	}
	if len(b) < 2 {
		return s, errors.New("a timestamp (SCT) without a signature")
	}
	// The algorithms are those of the log's key, whatever is said here.
	if s.sig, b, err = cut(b[2:], 2); err != nil {
		return s, err
	}
	if len(b) > 0 {
		return s, errors.New("something after a timestamp (SCT)")
	}
	return s, nil
}

// message is what a log signs for a precertificate.
func (s sct) message(issuer *x509.Certificate, tbs []byte) []byte {
	b := []byte{0, 0} // version 1, certificate_timestamp
	b = binary.BigEndian.AppendUint64(b, s.stamp)
	b = append(b, 0, 1) // precert_entry
	key := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	b = append(b, key[:]...)
	b = append(b, byte(len(tbs)>>16), byte(len(tbs)>>8), byte(len(tbs)))
	b = append(b, tbs...)
	b = append(b, byte(len(s.extensions)>>8), byte(len(s.extensions)))
	return append(b, s.extensions...)
}

// tbsCertificate is that of RFC 5280, section 4.1, as far as it must be taken
// apart.
type tbsCertificate struct {
	Version    int `asn1:"optional,explicit,default:0,tag:0"`
	Serial     *big.Int
	Algorithm  asn1.RawValue
	Issuer     asn1.RawValue
	Validity   asn1.RawValue
	Subject    asn1.RawValue
	Key        asn1.RawValue
	Extensions []pkix.Extension `asn1:"omitempty,optional,explicit,tag:3"`
}

// withoutSCTs gives the certificate's body as the logs saw it.
func withoutSCTs(raw []byte) ([]byte, error) {
	var tbs tbsCertificate
	if rest, err := asn1.Unmarshal(raw, &tbs); err != nil || len(rest) > 0 {
		return nil, errors.New("the certificate cannot be taken apart")
	}
	tbs.Extensions = slices.DeleteFunc(tbs.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidSCTs) })
	return asn1.Marshal(tbs)
}
