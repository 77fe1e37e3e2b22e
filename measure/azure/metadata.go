package azure

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

// MetadataURL is Azure's instance metadata service, at the host: plain HTTP on a
// link-local address.
const MetadataURL = "http://169.254.169.254"

// Limits of one question to the metadata service.
const (
	metadataTimeout = 10 * time.Second
	maxMetadata     = 1 << 20 // bytes of an answer
)

// Metadata asks the instance metadata service for what only the host has: the
// chip's certificate, and quotes of TDREPORTs. It is the host's and nothing it
// says is believed: a verifier finds out what it is worth.
type Metadata struct {
	URL    string       // empty for [MetadataURL]
	Client *http.Client // nil for one that goes through no proxy
}

// vcek returns the certificate of the chip, in DER.
func (m Metadata) vcek(ctx context.Context) ([]byte, error) {
	raw, err := m.ask(ctx, http.MethodGet, "/metadata/THIM/amd/certification", nil)
	var der []byte
	if err == nil {
		der, err = parseVCEK(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("VCEK: %w", err)
	}
	return der, nil
}

var errNoJSON = errors.New("the metadata service answers no such JSON")

func parseVCEK(raw []byte) ([]byte, error) {
	var answer struct {
		VCEK string `json:"vcekCert"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, errNoJSON
	}
	block, _ := pem.Decode([]byte(answer.VCEK))
	if block == nil || block.Type != "CERTIFICATE" || len(block.Bytes) > maxCertificate {
		return nil, errors.New("the metadata service returns no certificate in PEM")
	}
	return block.Bytes, nil
}

// tdReportSize is that of a TDREPORT in bytes; zeros follow it in the HCL report.
const tdReportSize = 1024

// tdQuote returns the quote of the TDREPORT in an HCL report.
func (m Metadata) tdQuote(ctx context.Context, h *HCLReport) ([]byte, error) {
	question := map[string]string{"report": base64.RawURLEncoding.EncodeToString(h.Hardware[:tdReportSize])}
	raw, err := m.ask(ctx, http.MethodPost, "/acc/tdquote", question)
	var quote []byte
	if err == nil {
		quote, err = parseTDQuote(raw, h.Binding())
	}
	if err != nil {
		return nil, fmt.Errorf("TD quote: %w", err)
	}
	return quote, nil
}

// parseTDQuote reads an answer, which must be over the digest.
func parseTDQuote(answered, digest []byte) ([]byte, error) {
	var answer struct {
		Quote string `json:"quote"`
	}
	if err := json.Unmarshal(answered, &answer); err != nil {
		return nil, errNoJSON
	}
	// Of both alphabets, and padded or not.
	text := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(answer.Quote, "="))
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) > maxTDQuote {
		return nil, errors.New("the metadata service returns no base64")
	}
	q, err := dcap.ParseQuote(raw)
	if err != nil {
		return nil, err
	}
	report, err := tdx.ParseReport(q.Body)
	if err != nil {
		return nil, err
	}
	want, err := measure.NewReportData(digest)
	if err != nil {
		return nil, err
	}
	if report.ReportData != want {
		return nil, errors.New("it is over other runtime data than the HCL report has")
	}
	return raw, nil
}

// direct goes through no proxy: the service is on this link, and a proxy would
// answer for another machine.
var direct = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: noRedirects}

func noRedirects(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// ask returns the body of an answer.
func (m Metadata) ask(ctx context.Context, method, path string, question any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	body := []byte{}
	if question != nil {
		var err error
		if body, err = json.Marshal(question); err != nil {
			return nil, err
		}
	}
	base := m.URL
	if base == "" {
		base = MetadataURL
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Metadata", "true")
	if question != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	c := m.Client
	if c == nil {
		c = direct
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the metadata service: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxMetadata+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask the metadata service: %w", err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the metadata service answers %s to %s", resp.Status, path)
	case len(raw) > maxMetadata:
		return nil, fmt.Errorf("the metadata service answers more than %d bytes to %s", maxMetadata, path)
	}
	return raw, nil
}

// vceks keeps the chip's certificate until a report is of another chip or TCB:
// a VM may move, and its host may be updated. One caller at a time.
type vceks struct {
	chip [64]byte
	tcb  snp.TCB
	der  []byte
}

func (v *vceks) get(ctx context.Context, m Metadata, h *HCLReport) ([]byte, error) {
	r, err := snp.ParseReport(h.Hardware[:])
	if err != nil {
		return nil, err
	}
	if v.der != nil && v.chip == r.ChipID && v.tcb == r.ReportedTCB {
		return v.der, nil
	}
	der, err := m.vcek(ctx)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("VCEK: %w", err)
	}
	if !r.SignedBy(cert) {
		return nil, errors.New("VCEK: the metadata service returns the certificate of another chip or firmware")
	}
	v.chip, v.tcb, v.der = r.ChipID, r.ReportedTCB, der
	return der, nil
}
