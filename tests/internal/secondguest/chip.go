package secondguest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"time"
)

// Chip is a simulated AMD Milan under a vendor of its own: a certificate chain
// as AMD's and reports as section 16.2 lays them out.
type Chip struct {
	// Roots is what a broker must trust: ARK, ASK and the ARK's revocation list.
	Roots       []byte
	Measurement [48]byte
	HostData    [32]byte
	id          [64]byte
	key         *ecdsa.PrivateKey
	leaf        []byte
}

// The firmware that the chip's certificate and its reports name.
const (
	bootloader = 4
	snp        = 24
	microcode  = 219
)

// NewChip makes a vendor and one chip. It takes seconds: two keys of RSA-4096.
func NewChip() (*Chip, error) {
	c := &Chip{}
	rand.Read(c.Measurement[:])
	rand.Read(c.id[:])
	arkKey, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		return nil, err
	}
	askKey, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		return nil, err
	}
	ark := authority("ARK-Milan", 1)
	ark.KeyUsage |= x509.KeyUsageCRLSign
	arkDER, err := x509.CreateCertificate(rand.Reader, ark, ark, &arkKey.PublicKey, arkKey)
	if err != nil {
		return nil, err
	}
	if ark, err = x509.ParseCertificate(arkDER); err != nil {
		return nil, err
	}
	ask := authority("SEV-Milan", 2)
	askDER, err := x509.CreateCertificate(rand.Reader, ask, ark, &askKey.PublicKey, arkKey)
	if err != nil {
		return nil, err
	}
	if ask, err = x509.ParseCertificate(askDER); err != nil {
		return nil, err
	}
	crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), SignatureAlgorithm: x509.SHA384WithRSAPSS,
		ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(24 * time.Hour),
	}, ark, arkKey)
	if err != nil {
		return nil, err
	}
	c.Roots = slices.Concat(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: arkDER}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: askDER}),
		pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl}),
	)
	return c, c.certify(ask, askKey)
}

// amd is a name as in AMD's certificates.
func amd(cn string) pkix.Name {
	return pkix.Name{
		Country: []string{"US"}, Locality: []string{"Santa Clara"}, Province: []string{"CA"},
		Organization: []string{"Advanced Micro Devices"}, OrganizationalUnit: []string{"Engineering"}, CommonName: cn,
	}
}

func authority(cn string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: amd(cn), SignatureAlgorithm: x509.SHA384WithRSAPSS,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		CRLDistributionPoints: []string{"https://kdsintf.amd.com/vcek/v1/Milan/crl"},
	}
}

// certify makes the chip's key and its certificate with the extensions of
// section 16.2.
func (c *Chip) certify(ask *x509.Certificate, askKey *rsa.PrivateKey) (err error) {
	if c.key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader); err != nil {
		return err
	}
	arc := func(tail ...int) asn1.ObjectIdentifier {
		return append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}, tail...)
	}
	product, err := asn1.MarshalWithParams("Milan-B1", "ia5")
	if err != nil {
		return err
	}
	extensions := []pkix.Extension{{Id: arc(2), Value: product}, {Id: arc(4), Value: c.id[:]}}
	for _, n := range []struct {
		oid   asn1.ObjectIdentifier
		value int
	}{
		{arc(1), 0},
		{arc(3, 1), bootloader},
		{arc(3, 2), 0},
		{arc(3, 3), snp},
		{arc(3, 4), 0},
		{arc(3, 5), 0},
		{arc(3, 6), 0},
		{arc(3, 7), 0},
		{arc(3, 8), microcode},
	} {
		value, err := asn1.Marshal(n.value)
		if err != nil {
			return err
		}
		extensions = append(extensions, pkix.Extension{Id: n.oid, Value: value})
	}
	c.leaf, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: new(big.Int), Subject: amd("SEV-VCEK"), SignatureAlgorithm: x509.SHA384WithRSAPSS,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), ExtraExtensions: extensions,
	}, ask, &c.key.PublicKey, askKey)
	return err
}

// Evidence is a report over the digest, filled up to 64 bytes, as its JSON.
func (c *Chip) Evidence(digest []byte) (json.RawMessage, error) {
	raw := make([]byte, 1184)
	le := binary.LittleEndian
	tcb := []byte{bootloader, 0, 0, 0, 0, 0, snp, microcode}
	le.PutUint32(raw[0x000:], 3) // version
	le.PutUint64(raw[0x008:], 0x30000)
	le.PutUint32(raw[0x034:], 1) // ECDSA P-384
	copy(raw[0x038:], tcb)
	le.PutUint64(raw[0x040:], 0x25)
	copy(raw[0x050:0x090], digest)
	copy(raw[0x090:], c.Measurement[:])
	copy(raw[0x0c0:], c.HostData[:])
	for i := 0x160; i < 0x180; i++ {
		raw[i] = 0xff // no migration agent (SEV-SNP ABI, ATTESTATION_REPORT)
	}
	copy(raw[0x180:], tcb)
	raw[0x188], raw[0x189], raw[0x18a] = 0x19, 0x01, 0x01
	copy(raw[0x1a0:], c.id[:])
	copy(raw[0x1e0:], tcb)
	copy(raw[0x1e8:], []byte{40, 55, 1, 0, 40, 55, 1, 0})
	copy(raw[0x1f0:], tcb)
	sum := sha512.Sum384(raw[:0x2a0])
	r, s, err := ecdsa.Sign(rand.Reader, c.key, sum[:])
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{
		"attestation_report": serde(raw, little(r), little(s)),
		"cert_chain":         []any{map[string]any{"cert_type": "VCEK", "data": numbers(c.leaf)}},
	})
}

func little(n *big.Int) []byte {
	b := n.FillBytes(make([]byte, 72))
	slices.Reverse(b)
	return b
}

// numbers is how serde writes bytes.
func numbers(b []byte) []int {
	out := make([]int, len(b))
	for i, v := range b {
		out[i] = int(v)
	}
	return out
}

// serde takes a report apart into the members of section 16.2.
func serde(raw, r, s []byte) map[string]any {
	le := binary.LittleEndian
	tcb := func(at int) map[string]any {
		return map[string]any{"fmc": nil, "bootloader": raw[at], "tee": raw[at+1], "snp": raw[at+6], "microcode": raw[at+7]}
	}
	version := func(at int) map[string]any {
		return map[string]any{"build": raw[at], "minor": raw[at+1], "major": raw[at+2]}
	}
	bytes := func(at, n int) []int { return numbers(raw[at : at+n]) }
	return map[string]any{
		"version": le.Uint32(raw), "guest_svn": le.Uint32(raw[4:]), "policy": le.Uint64(raw[8:]),
		"family_id": bytes(0x10, 16), "image_id": bytes(0x20, 16), "vmpl": le.Uint32(raw[0x30:]), "sig_algo": le.Uint32(raw[0x34:]),
		"current_tcb": tcb(0x38), "plat_info": le.Uint64(raw[0x40:]), "key_info": le.Uint32(raw[0x48:]),
		"report_data": bytes(0x50, 64), "measurement": bytes(0x90, 48), "host_data": bytes(0xc0, 32),
		"id_key_digest": bytes(0xe0, 48), "author_key_digest": bytes(0x110, 48),
		"report_id": bytes(0x140, 32), "report_id_ma": bytes(0x160, 32), "reported_tcb": tcb(0x180),
		"cpuid_fam_id": raw[0x188], "cpuid_mod_id": raw[0x189], "cpuid_step": raw[0x18a],
		"chip_id": bytes(0x1a0, 64), "committed_tcb": tcb(0x1e0), "current": version(0x1e8), "committed": version(0x1ec),
		"launch_tcb": tcb(0x1f0), "launch_mit_vector": nil, "current_mit_vector": nil,
		"signature": map[string]any{"r": numbers(r), "s": numbers(s)},
	}
}

// Sample is evidence of the sample platforms (section 16.1).
func Sample(svn string) func(digest []byte) (json.RawMessage, error) {
	return func(digest []byte) (json.RawMessage, error) {
		return json.Marshal(map[string]any{"svn": svn, "report_data": digest}) // []byte is standard base64
	}
}
