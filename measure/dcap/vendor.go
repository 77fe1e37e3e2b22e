package dcap

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// Lifetimes of what a simulated vendor issues. Everything starts an hour
// early, for guests and brokers whose clocks differ.
const (
	vendorLife     = 25 * 365 * 24 * time.Hour
	pckLife        = 7 * 365 * 24 * time.Hour
	collateralLife = 30 * 24 * time.Hour // as Intel's
	clockSlack     = time.Hour
)

// SimulatedFMSPC is the kind of all simulated platforms. Intel has none of
// this number.
var SimulatedFMSPC = [6]byte{'S', 'I', 'M', 0, 0, 0}

// evaluationNumber is that of simulated collateral.
const evaluationNumber = 17

// Vendor is a simulated Intel: a root, the CA that certifies platforms, and
// the signer of collateral. Whoever has it can make any evidence that is
// trusted under its root.
type Vendor struct {
	root, ca, signer       *x509.Certificate
	rootKey, caKey, tcbKey *ecdsa.PrivateKey
}

// NewVendor makes a vendor as of a time.
func NewVendor(now time.Time) (*Vendor, error) {
	v := new(Vendor)
	for _, k := range []**ecdsa.PrivateKey{&v.rootKey, &v.caKey, &v.tcbKey} {
		var err error
		if *k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	mark := make([]byte, 8)
	rand.Read(mark)
	root := v.template(nameRoot, hex.EncodeToString(mark), now, vendorLife)
	root.IsCA, root.MaxPathLen, root.KeyUsage = true, 1, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	var err error
	if v.root, err = issue(root, root, &v.rootKey.PublicKey, v.rootKey); err != nil {
		return nil, err
	}
	ca := v.template(namePlatformCA, hex.EncodeToString(mark), now, vendorLife)
	ca.IsCA, ca.MaxPathLenZero, ca.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	if v.ca, err = issue(ca, v.root, &v.caKey.PublicKey, v.rootKey); err != nil {
		return nil, err
	}
	signer := v.template(nameTCBSigning, hex.EncodeToString(mark), now, vendorLife)
	signer.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	v.signer, err = issue(signer, v.root, &v.tcbKey.PublicKey, v.rootKey)
	return v, err
}

// template is a certificate in the form of Intel's profile. The serial number
// in the name marks it as simulated for everyone who looks.
func (v *Vendor) template(name, mark string, now time.Time, life time.Duration) *x509.Certificate {
	serial := make([]byte, 19)
	rand.Read(serial)
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: intelName(name, mark),
		NotBefore: now.Add(-clockSlack), NotAfter: now.Add(life),
		SignatureAlgorithm: x509.ECDSAWithSHA256, BasicConstraintsValid: true,
		CRLDistributionPoints: []string{"https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"},
	}
}

// intelName is a name as in Intel's certificates; verifiers compare it.
func intelName(cn, mark string) pkix.Name {
	return pkix.Name{
		CommonName: cn, Organization: []string{"Intel Corporation"}, Locality: []string{"Santa Clara"},
		Province: []string{"CA"}, Country: []string{"US"}, SerialNumber: "simulated-" + mark,
	}
}

func issue(template, parent *x509.Certificate, key *ecdsa.PublicKey, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", template.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// Bundle returns root.pem, what [SimulatedRoot] takes.
func (v *Vendor) Bundle() []byte { return encodePEM(v.root) }

func encodePEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})...)
	}
	return out
}

// Statement is what a simulated vendor says about its platforms. The zero
// value is that all simulated chips are up to date, and nothing is revoked.
type Statement struct {
	// TCBInfo and QEIdentity change the documents before they are signed; nil
	// leaves them.
	TCBInfo    func(*TCBInfo)
	QEIdentity func(*QEIdentity)
	// Revoked are PCK certificates that the CA takes back.
	Revoked []*x509.Certificate
	// RevokeCA and RevokeSigner make the root take back its CA, or the signer
	// of TCB info and QE identity.
	RevokeCA, RevokeSigner bool
	// Lists changes the revocation lists before they are signed; nil leaves them.
	Lists func(pck, root *x509.RevocationList)
}

// Collateral makes the collateral of a simulated chip's kind, valid from a
// time on for thirty days.
func (v *Vendor) Collateral(tee TEE, now time.Time, s Statement) (Collateral, error) {
	info, identity := simulatedTCBInfo(tee, now), simulatedQEIdentity(tee, now)
	if s.TCBInfo != nil {
		s.TCBInfo(info)
	}
	if s.QEIdentity != nil {
		s.QEIdentity(identity)
	}
	c := Collateral{
		TCBInfoChain: encodePEM(v.signer, v.root), QEIdentityChain: encodePEM(v.signer, v.root),
		PCKCRLChain: encodePEM(v.ca, v.root),
	}
	var err error
	if c.TCBInfo, err = v.sign("tcbInfo", info); err != nil {
		return c, err
	}
	if c.QEIdentity, err = v.sign("enclaveIdentity", identity); err != nil {
		return c, err
	}
	pck, root := newList(now), newList(now)
	for _, r := range s.Revoked {
		revoke(pck, r, now)
	}
	if s.RevokeCA {
		revoke(root, v.ca, now)
	}
	if s.RevokeSigner {
		revoke(root, v.signer, now)
	}
	if s.Lists != nil {
		s.Lists(pck, root)
	}
	if c.PCKCRL, err = x509.CreateRevocationList(rand.Reader, pck, v.ca, v.caKey); err != nil {
		return c, fmt.Errorf("sign revocation list: %w", err)
	}
	if c.RootCRL, err = x509.CreateRevocationList(rand.Reader, root, v.root, v.rootKey); err != nil {
		return c, fmt.Errorf("sign revocation list: %w", err)
	}
	return c, nil
}

func newList(now time.Time) *x509.RevocationList {
	return &x509.RevocationList{
		Number: big.NewInt(1), SignatureAlgorithm: x509.ECDSAWithSHA256,
		ThisUpdate: now.Add(-clockSlack), NextUpdate: now.Add(collateralLife),
	}
}

func revoke(l *x509.RevocationList, c *x509.Certificate, now time.Time) {
	l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
		x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now})
}

// sign returns a document as the PCS answers it.
func (v *Vendor) sign(member string, document any) ([]byte, error) {
	signed, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", member, err)
	}
	signature, err := signRaw(v.tcbKey, signed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", member, err)
	}
	return fmt.Appendf(nil, `{"%s":%s,"signature":"%x"}`, member, signed, signature), nil
}

// signRaw signs with SHA-256 and returns r and s, big-endian.
func signRaw(key *ecdsa.PrivateKey, data []byte) (out [64]byte, err error) {
	sum := sha256.Sum256(data)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return out, err
	}
	r.FillBytes(out[:32])
	s.FillBytes(out[32:])
	return out, nil
}
