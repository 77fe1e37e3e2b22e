package snp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// The host's certificate table (GHCB specification, SNP extended guest
// request): entries of 16 bytes GUID, u32 offset from the start of the table,
// u32 length; an entry of zeros; then the certificates. GUIDs are in the byte
// order of their text.
const tableEntry = 24

// maxTableData bounds all certificates together, in bytes, so that evidence with
// them stays below [MaxEvidenceSize], where each byte takes up to four.
const maxTableData = 192 << 10

// certificateGUIDs names the entries that the wire knows.
var certificateGUIDs = map[string]CertType{
	"63da758d-e664-4564-adc5-f4b93be8accd": CertVCEK,
	"a8074bc2-a25a-483e-aae6-39c045a0b8a1": CertVLEK,
	"4ab7b379-bbac-4fe4-a02f-05aef327c782": CertASK,
	"c0b406a4-a803-4952-9743-3fb6014cd0ae": CertARK,
	"92f81bc3-5811-4d3d-97ff-d19f88dc67ea": CertCRL,
}

// parseCertificateTable reads what the host gave. No bytes, or a table without
// entries, mean that it gave nothing.
func parseCertificateTable(raw []byte) ([]Certificate, error) {
	var certs []Certificate
	total := 0
	for at := 0; len(raw) > 0; at += tableEntry {
		if len(raw)-at < tableEntry {
			return nil, errors.New("the table has no end")
		}
		entry := raw[at : at+tableEntry]
		if bytes.Equal(entry, make([]byte, tableEntry)) {
			return certs, nil
		}
		if len(certs) == maxCertificates {
			return nil, fmt.Errorf("more than %d entries", maxCertificates)
		}
		c, err := tableCertificate(raw, entry)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", len(certs), err)
		}
		if c.Type != CertOther && slices.ContainsFunc(certs, func(d Certificate) bool { return d.Type == c.Type }) {
			return nil, fmt.Errorf("entry %d: a second %s", len(certs), c.Type)
		}
		if total += len(c.Data); total > maxTableData {
			return nil, fmt.Errorf("more than %d bytes of certificates", maxTableData)
		}
		certs = append(certs, c)
	}
	return certs, nil
}

func tableCertificate(raw, entry []byte) (Certificate, error) {
	g := entry[:16]
	uuid := fmt.Sprintf("%x-%x-%x-%x-%x", g[:4], g[4:6], g[6:8], g[8:10], g[10:])
	offset, length := uint64(binary.LittleEndian.Uint32(entry[16:])), uint64(binary.LittleEndian.Uint32(entry[20:]))
	if offset+length > uint64(len(raw)) {
		return Certificate{}, errors.New("it lies outside the table")
	}
	if length > maxCertificateSize {
		return Certificate{}, fmt.Errorf("%d bytes, at most %d are allowed", length, maxCertificateSize)
	}
	data := bytes.Clone(raw[offset : offset+length])
	if t, ok := certificateGUIDs[uuid]; ok {
		return Certificate{Type: t, Data: data}, nil
	}
	return Certificate{Type: CertOther, UUID: uuid, Data: data}, nil
}
