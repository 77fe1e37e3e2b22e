package snp

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// Limits on evidence from the wire. Real evidence has about 40 kB.
const (
	MaxEvidenceSize    = 1 << 20 // bytes of JSON
	maxCertificates    = 16
	maxCertificateSize = 64 << 10 // bytes
)

// CertType names an entry of the certificate table (guest-protocol 4.5).
type CertType string

// The types that the wire knows by name.
const (
	CertVCEK  CertType = "VCEK"
	CertVLEK  CertType = "VLEK"
	CertASK   CertType = "ASK"
	CertARK   CertType = "ARK"
	CertCRL   CertType = "CRL"
	CertEmpty CertType = "Empty"
	CertOther CertType = "OTHER" // carries a UUID
)

// Certificate is one entry of the certificate table that the host gave to the
// guest. It is a hint and proves nothing by itself.
type Certificate struct {
	Type CertType
	UUID string // of CertOther, otherwise empty
	Data []byte // DER for certificates
}

// Evidence is a report with the certificates that came along.
type Evidence struct {
	Report       *Report
	Certificates []Certificate
}

// Certificate returns the data of the entry of a type, nil if there is none.
func (e *Evidence) Certificate(t CertType) []byte { return certificate(e.Certificates, t) }

func certificate(certs []Certificate, t CertType) []byte {
	for _, c := range certs {
		if c.Type == t {
			return c.Data
		}
	}
	return nil
}

// ParseEvidence reads the wire form of kbs-protocol 16.2, the JSON that the
// sev crate makes of its structs. As there, unknown members are skipped, and
// a member that comes twice is an error; they cannot hide anything, since the
// signature covers the report that is rebuilt from the known ones.
func ParseEvidence(ev measure.Evidence) (*Evidence, error) {
	r, raw, err := splitEvidence(ev)
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(raw)
	if err != nil {
		return nil, fmt.Errorf("SNP evidence: cert_chain: %w", err)
	}
	return &Evidence{Report: r, Certificates: certs}, nil
}

// splitEvidence reads the report and leaves the certificates as they came.
func splitEvidence(ev measure.Evidence) (*Report, json.RawMessage, error) {
	if ev.Platform != measure.SNP {
		return nil, nil, fmt.Errorf("evidence of platform %q given to the SNP parser", ev.Platform)
	}
	if len(ev.Data) > MaxEvidenceSize {
		return nil, nil, fmt.Errorf("SNP evidence has %d bytes, at most %d are allowed", len(ev.Data), MaxEvidenceSize)
	}
	top, err := parseObject(ev.Data)
	if err != nil {
		return nil, nil, fmt.Errorf("SNP evidence: %w", err)
	}
	body, err := inner(top.members["attestation_report"])
	if err != nil {
		return nil, nil, fmt.Errorf("SNP evidence: attestation_report: %w", err)
	}
	r, err := body.report()
	if err != nil {
		return nil, nil, fmt.Errorf("SNP evidence: attestation_report: %w", err)
	}
	return r, top.members["cert_chain"], nil
}

func parseCertificates(raw json.RawMessage) ([]Certificate, error) {
	if raw == nil || string(raw) == "null" {
		return nil, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, errors.New("not a list")
	}
	if len(list) > maxCertificates {
		return nil, fmt.Errorf("%d entries, at most %d are allowed", len(list), maxCertificates)
	}
	certs := make([]Certificate, 0, len(list))
	for i, raw := range list {
		c, err := parseCertificate(raw)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		named := c.Type != CertOther && c.Type != CertEmpty
		if named && slices.ContainsFunc(certs, func(d Certificate) bool { return d.Type == c.Type }) {
			return nil, fmt.Errorf("entry %d: a second %s", i, c.Type)
		}
		certs = append(certs, c)
	}
	return certs, nil
}

func parseCertificate(raw json.RawMessage) (Certificate, error) {
	var c Certificate
	o, err := inner(raw)
	if err != nil {
		return c, err
	}
	if c.Data, err = parseOctets(o.members["data"], maxCertificateSize); err != nil {
		return c, fmt.Errorf("data: %w", err)
	}
	kind := o.members["cert_type"]
	if len(kind) > 0 && kind[0] == '{' {
		other, err := inner(kind)
		if err != nil {
			return c, fmt.Errorf("cert_type: %w", err)
		}
		c.Type = CertOther
		if err := json.Unmarshal(other.members[string(CertOther)], &c.UUID); err != nil || c.UUID == "" || len(other.members) != 1 {
			return c, errors.New("cert_type: an object must be {\"OTHER\": uuid}")
		}
		return c, nil
	}
	if err := json.Unmarshal(kind, &c.Type); err != nil {
		return c, errors.New("cert_type: not a string")
	}
	switch c.Type {
	case CertVCEK, CertVLEK, CertASK, CertARK, CertCRL, CertEmpty:
		return c, nil
	case CertOther: // only as an object
	}
	return c, fmt.Errorf("cert_type %q is not known", c.Type)
}

// Wire returns the evidence in the form that ParseEvidence reads, with the
// members in the order of the sev crate.
func (e *Evidence) Wire() (measure.Evidence, error) {
	if err := e.Report.checkForm(); err != nil {
		return measure.Evidence{}, err // JSON has no place for these bytes
	}
	type entry struct {
		Type any    `json:"cert_type"`
		Data octets `json:"data"`
	}
	chain := make([]entry, 0, len(e.Certificates))
	for _, c := range e.Certificates {
		var kind any = c.Type
		if c.Type == CertOther {
			kind = map[CertType]string{CertOther: c.UUID}
		}
		chain = append(chain, entry{kind, c.Data})
	}
	data, err := json.Marshal(struct {
		Report wireReport `json:"attestation_report"`
		Chain  []entry    `json:"cert_chain"`
	}{e.Report.wire(), chain})
	if err != nil {
		return measure.Evidence{}, fmt.Errorf("encode SNP evidence: %w", err)
	}
	return measure.Evidence{Platform: measure.SNP, Data: data}, nil
}

// wireReport is the report as the sev crate (version 6) serialises it.
type wireReport struct {
	Version            uint32        `json:"version"`
	GuestSVN           uint32        `json:"guest_svn"`
	Policy             uint64        `json:"policy"`
	FamilyID           octets        `json:"family_id"`
	ImageID            octets        `json:"image_id"`
	VMPL               uint32        `json:"vmpl"`
	SignatureAlgorithm uint32        `json:"sig_algo"`
	CurrentTCB         wireTCB       `json:"current_tcb"`
	PlatformInfo       uint64        `json:"plat_info"`
	KeyInfo            uint32        `json:"key_info"`
	ReportData         octets        `json:"report_data"`
	Measurement        octets        `json:"measurement"`
	HostData           octets        `json:"host_data"`
	IDKeyDigest        octets        `json:"id_key_digest"`
	AuthorKeyDigest    octets        `json:"author_key_digest"`
	ReportID           octets        `json:"report_id"`
	ReportIDMA         octets        `json:"report_id_ma"`
	ReportedTCB        wireTCB       `json:"reported_tcb"`
	CPUFamily          *uint8        `json:"cpuid_fam_id"`
	CPUModel           *uint8        `json:"cpuid_mod_id"`
	CPUStepping        *uint8        `json:"cpuid_step"`
	ChipID             octets        `json:"chip_id"`
	CommittedTCB       wireTCB       `json:"committed_tcb"`
	Current            wireVersion   `json:"current"`
	Committed          wireVersion   `json:"committed"`
	LaunchTCB          wireTCB       `json:"launch_tcb"`
	LaunchMitigations  *uint64       `json:"launch_mit_vector"`
	CurrentMitigations *uint64       `json:"current_mit_vector"`
	Signature          wireSignature `json:"signature"`
}

type (
	wireTCB     = SVNs
	wireVersion struct {
		Major uint8 `json:"major"`
		Minor uint8 `json:"minor"`
		Build uint8 `json:"build"`
	}
	wireSignature struct {
		R octets `json:"r"`
		S octets `json:"s"`
	}
)

func (r *Report) wire() wireReport {
	turin := r.turinLayout()
	w := wireReport{
		Version: r.Version, GuestSVN: r.GuestSVN, Policy: r.Policy,
		FamilyID: r.FamilyID[:], ImageID: r.ImageID[:],
		VMPL: r.VMPL, SignatureAlgorithm: r.SignatureAlgorithm,
		CurrentTCB: r.CurrentTCB.split(turin), PlatformInfo: r.PlatformInfo, KeyInfo: r.KeyInfo,
		ReportData: r.ReportData[:], Measurement: r.Measurement[:], HostData: r.HostData[:],
		IDKeyDigest: r.IDKeyDigest[:], AuthorKeyDigest: r.AuthorKeyDigest[:],
		ReportID: r.ReportID[:], ReportIDMA: r.ReportIDMA[:],
		ReportedTCB: r.ReportedTCB.split(turin), ChipID: r.ChipID[:],
		CommittedTCB: r.CommittedTCB.split(turin),
		Current:      wireVersion(r.Current), Committed: wireVersion(r.Committed),
		LaunchTCB: r.LaunchTCB.split(turin),
		Signature: wireSignature{R: r.SignatureR[:], S: r.SignatureS[:]},
	}
	if r.Version >= 3 {
		w.CPUFamily, w.CPUModel, w.CPUStepping = &r.CPUFamily, &r.CPUModel, &r.CPUStepping
	}
	if r.Version >= 5 {
		w.LaunchMitigations, w.CurrentMitigations = &r.LaunchMitigations, &r.CurrentMitigations
	}
	return w
}
