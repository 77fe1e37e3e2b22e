package snp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"time"
)

// processor tells what a generation looks like: CPUID family, model and
// stepping, the product name that AMD gives to that stepping, and a TCB.
func (g Generation) processor() (fms [3]uint8, product string, svns SVNs) {
	switch g {
	case Turin:
		fmc := uint8(1)
		return [3]uint8{familyZen5, 0x02, 0}, "Turin-B0", SVNs{FMC: &fmc, Bootloader: 2, TEE: 1, SNP: 4, Microcode: 76}
	case Genoa:
		return [3]uint8{familyZen3, 0x11, 1}, "Genoa-B1", SVNs{Bootloader: 10, TEE: 0, SNP: 23, Microcode: 84}
	case Milan:
	}
	return [3]uint8{familyZen3, 0x01, 1}, "Milan-B1", SVNs{Bootloader: 4, TEE: 0, SNP: 24, Microcode: 219}
}

// issueVCEK makes the key of a chip and certifies it for a TCB.
func (v *vendor) issueVCEK(chip []byte, svns SVNs, now time.Time) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	_, product, _ := v.generation.processor()
	cert, err := v.certify(nameVCEK, key.Public(), product, pkix.Extension{Id: oidHWID, Value: chip}, svns, now)
	return key, cert, err
}

// issueVLEK makes a key that is lent to a cloud, and certifies it for a TCB.
func (v *vendor) issueVLEK(csp string, svns SVNs, now time.Time) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	if v.asvk == nil {
		return nil, nil, errors.New("the vendor lends no keys: it has no ASVK")
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	name, err := asn1.MarshalWithParams(csp, "ia5")
	if err != nil {
		return nil, nil, err
	}
	cert, err := v.certify(nameVLEK, key.Public(), string(v.generation), pkix.Extension{Id: oidCSP, Value: name}, svns, now)
	return key, cert, err
}

// certify issues the certificate of a key that signs reports.
func (v *vendor) certify(name string, key crypto.PublicKey, product string, owner pkix.Extension, svns SVNs, now time.Time) (*x509.Certificate, error) {
	extensions, err := tcbExtensions(product, svns)
	if err != nil {
		return nil, err
	}
	signer, signerKey, life := v.ask, v.askKey, vcekLife
	if name == nameVLEK {
		signer, signerKey, life = v.asvk, v.asvkKey, vlekLife
	}
	return issue(&x509.Certificate{
		SerialNumber: new(big.Int), // as AMD does for all of them
		Subject:      amdName(name), NotBefore: now.Add(-clockSlack), NotAfter: now.Add(life),
		SignatureAlgorithm: x509.SHA384WithRSAPSS, ExtraExtensions: append(extensions, owner),
	}, signer, key, signerKey)
}

func tcbExtensions(product string, svns SVNs) ([]pkix.Extension, error) {
	name, err := asn1.MarshalWithParams(product, "ia5")
	if err != nil {
		return nil, err
	}
	out := []pkix.Extension{{Id: oidProductName, Value: name}}
	numbers := []struct {
		oid asn1.ObjectIdentifier
		n   uint8
	}{
		{oidStructVersion, 0}, {oidBootloader, svns.Bootloader}, {oidTEE, svns.TEE}, {oidReserved4, 0}, {oidReserved5, 0},
		{oidReserved6, 0}, {oidReserved7, 0}, {oidSNP, svns.SNP}, {oidMicrocode, svns.Microcode},
	}
	if svns.FMC != nil {
		numbers = append(numbers, struct {
			oid asn1.ObjectIdentifier
			n   uint8
		}{oidFMC, *svns.FMC})
	}
	for _, e := range numbers {
		value, err := asn1.Marshal(int(e.n))
		if err != nil {
			return nil, err
		}
		out = append(out, pkix.Extension{Id: e.oid, Value: value})
	}
	return out, nil
}
