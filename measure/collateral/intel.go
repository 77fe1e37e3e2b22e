package collateral

import (
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
)

// Intel's own services.
const (
	IntelPCS     = "https://api.trustedservices.intel.com"
	IntelRootCRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
)

// IntelConfig names a service of Intel's interface, version 4.
type IntelConfig struct {
	// Base is the address of a PCS or a PCCS, with or without the path
	// /sgx/certification/v4 that other verifiers want.
	Base string
	// RootCRL is where the root's revocation list is. Empty is IntelRootCRL for
	// Intel's own service; a PCCS has the list itself.
	RootCRL string
	// Early asks for the evaluation that vendors get before all others (Intel's
	// update=early), instead of the standard one.
	Early bool
	Web   WebConfig
}

type intel struct {
	pcs, root *web // root is nil for a PCCS
	update    string
}

const versionPath = "/sgx/certification/v4"

// Intel asks a PCS or a PCCS.
func Intel(c IntelConfig) (Fetcher, error) {
	pcs, err := newWeb(strings.TrimSuffix(strings.TrimSuffix(c.Base, "/"), versionPath), c.Web)
	if err != nil {
		return nil, err
	}
	i := &intel{pcs: pcs, update: "standard"}
	if c.Early {
		i.update = "early"
	}
	if c.RootCRL == "" && strings.HasSuffix(pcs.base.Hostname(), ".trustedservices.intel.com") {
		c.RootCRL = IntelRootCRL
	}
	if c.RootCRL != "" {
		i.root, err = newWeb(c.RootCRL, c.Web)
	}
	return i, err
}

// Fetch implements [Fetcher].
func (i *intel) Fetch(ctx context.Context, n Name) (Item, error) {
	r, err := n.parse()
	if err != nil {
		return Item{}, err
	}
	limit := 2*r.kind.limit() + 2 // lists may come in hex
	switch r.kind {
	case kindTCBInfo:
		q := url.Values{"fmspc": {hex.EncodeToString(r.fmspc[:])}, "update": {i.update}}
		a, err := i.pcs.get(ctx, fmt.Sprintf("%s/certification/v4/tcb", r.tee), q, limit)
		return chained(a, err, "TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain")
	case kindQEIdentity:
		a, err := i.pcs.get(ctx, fmt.Sprintf("%s/certification/v4/qe/identity", r.tee), url.Values{"update": {i.update}}, limit)
		return chained(a, err, "SGX-Enclave-Identity-Issuer-Chain")
	case kindPCKCRL:
		q := url.Values{"ca": {string(r.ca)}, "encoding": {"der"}}
		a, err := i.pcs.get(ctx, "sgx/certification/v4/pckcrl", q, limit)
		return listed(chained(a, err, "SGX-PCK-CRL-Issuer-Chain"))
	case kindRootCRL:
		if i.root != nil {
			a, err := i.root.get(ctx, "", nil, limit)
			return listed(Item{Body: a.body, Source: a.source}, err)
		}
		a, err := i.pcs.get(ctx, "sgx/certification/v4/rootcacrl", nil, limit)
		return listed(Item{Body: a.body, Source: a.source}, err)
	case kindAMDList, kindAMDChain, kindVCEK:
	}
	return Item{}, ErrElsewhere
}

// chained takes the issuer chain out of the header: PEM, URL-encoded.
func chained(a answer, err error, headers ...string) (Item, error) {
	if err != nil {
		return Item{}, err
	}
	i := Item{Source: a.source, Body: a.body}
	for _, h := range headers {
		text := a.header.Get(h)
		if text == "" {
			continue
		}
		if i.Chain, err = unescape(text); err != nil {
			return Item{}, fmt.Errorf("%s: header %s: %w", a.source, h, err)
		}
		return i, nil
	}
	return Item{}, fmt.Errorf("%s: there is no header %s", a.source, http.CanonicalHeaderKey(headers[0]))
}

// unescape takes the URL-encoding off a chain. A plus in base64 stays one.
func unescape(text string) ([]byte, error) {
	chain, err := url.PathUnescape(text)
	return []byte(chain), err
}

// listed turns a revocation list into DER: some caches give hex, some PEM.
func listed(i Item, err error) (Item, error) {
	if err != nil {
		return i, err
	}
	i.Body, err = derOf(i.Body)
	return i, err
}

func derOf(raw []byte) ([]byte, error) {
	if block, _ := pem.Decode(raw); block != nil {
		return block.Bytes, nil
	}
	if len(raw) > 0 && raw[0] == 0x30 && len(raw) > 1 && !isHex(raw) {
		return raw, nil
	}
	out, err := hex.DecodeString(strings.TrimSpace(strings.Trim(strings.TrimSpace(string(raw)), `"`)))
	if err != nil || len(out) == 0 {
		return nil, errors.New("the revocation list is neither DER nor PEM nor hex")
	}
	return out, nil
}

func isHex(raw []byte) bool {
	_, err := hex.DecodeString(strings.TrimSpace(string(raw)))
	return err == nil
}

// FMSPC reads the six bytes that name a kind of platform, in hex.
func FMSPC(text string) (out [6]byte, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(out) {
		return out, fmt.Errorf("a FMSPC is the hex of %d bytes, got %q", len(out), text)
	}
	return [6]byte(raw), nil
}

// Requests lists what a machine without a network needs for platforms: one for
// each TEE and authority.
func Requests(fmspc [6]byte) []dcap.Request {
	var out []dcap.Request
	for _, t := range []dcap.TEE{dcap.TDX, dcap.SGX} {
		for _, ca := range []dcap.CA{dcap.Platform, dcap.Processor} {
			out = append(out, dcap.Request{TEE: t, FMSPC: fmspc, CA: ca})
		}
	}
	return out
}
