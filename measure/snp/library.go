package snp

import (
	"fmt"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	"github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/validate"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"
)

// attestation is the evidence in the form of go-sev-guest. The chain holds
// only the leaf: the other certificates are the root's own.
func (a *examination) attestation() (*sevsnp.Attestation, error) {
	report, err := abi.ReportToProto(a.raw)
	if err != nil {
		return nil, err
	}
	certs := &sevsnp.CertificateChain{VcekCert: a.leaf.cert.Raw}
	if a.leaf.kind == VLEK {
		certs = &sevsnp.CertificateChain{VlekCert: a.leaf.cert.Raw}
	}
	return &sevsnp.Attestation{Report: report, CertificateChain: certs}, nil
}

// libraryVerify asks go-sev-guest about chain and signature.
func (a *examination) libraryVerify() error {
	att, err := a.attestation()
	if err != nil {
		return err
	}
	// The library files roots under the line that it makes of the CPU fields,
	// and it knows fewer models than there are. The root was chosen above; it
	// goes where the library will look. An empty map would mean AMD's roots.
	line := string(a.generation)
	if fms := att.GetReport().GetCpuid1EaxFms(); fms != 0 {
		line = kds.ProductLineFromFms(fms)
	}
	return verify.SnpAttestation(att, &verify.Options{
		DisableCertFetching: true,
		Getter:              noNetwork{},
		Now:                 a.now,
		TrustedRoots:        map[string][]*trust.AMDRootCerts{line: {a.library()}},
	})
}

// libraryValidate asks go-sev-guest whether certificate and report fit. What a
// guest policy may allow and whether firmware may be provisional is left to
// the policies that read the claims.
func (a *examination) libraryValidate() error {
	att, err := a.attestation()
	if err != nil {
		return err
	}
	return validate.SnpAttestation(att, &validate.Options{
		GuestPolicy:               abi.SnpPolicy{SMT: true, MigrateMA: true, Debug: true, CXLAllowed: true},
		PermitProvisionalFirmware: true,
	})
}

// library returns the root in the form of go-sev-guest.
func (a *examination) library() *trust.AMDRootCerts {
	certs := &trust.ProductCerts{Ark: a.root.ark, Ask: a.signer}
	if a.leaf.kind == VLEK {
		certs = &trust.ProductCerts{Ark: a.root.ark, Asvk: a.signer}
	}
	return &trust.AMDRootCerts{ProductLine: string(a.root.generation), ProductCerts: certs}
}

// noNetwork stands where the library would fetch from AMD.
type noNetwork struct{}

// Get refuses.
func (noNetwork) Get(url string) ([]byte, error) {
	return nil, fmt.Errorf("refusing to fetch %s while verifying", url)
}
