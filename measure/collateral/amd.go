package collateral

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// AMDKDS is AMD's Key Distribution Service (AMD 57230).
const AMDKDS = "https://kdsintf.amd.com"

type kds struct{ web *web }

// AMD asks a Key Distribution Service, or a cache that has its paths.
func AMD(base string, c WebConfig) (Fetcher, error) {
	w, err := newWeb(base, c)
	return &kds{w}, err
}

// Fetch implements [Fetcher].
func (k *kds) Fetch(ctx context.Context, n Name) (Item, error) {
	r, err := n.parse()
	if err != nil {
		return Item{}, err
	}
	path, query := kdsPath(r)
	if path == "" {
		return Item{}, ErrElsewhere
	}
	a, err := k.web.get(ctx, path, query, r.kind.limit())
	if err != nil {
		return Item{}, err
	}
	i := Item{Source: a.source, Body: a.body}
	if r.kind == kindAMDList {
		return listed(i, nil)
	}
	return i, nil
}

// kdsPath is where the service has an item; empty if it has no such things.
func kdsPath(r ref) (path string, query url.Values) {
	dir := fmt.Sprintf("%s/v1/%s/", strings.ToLower(r.key.String()), r.generation)
	switch r.kind {
	case kindAMDList:
		return dir + "crl", nil
	case kindAMDChain:
		return dir + "cert_chain", nil
	case kindVCEK:
		q := url.Values{}
		s := r.tcb.SVNs(r.generation)
		for name, v := range map[string]uint8{"blSPL": s.Bootloader, "teeSPL": s.TEE, "snpSPL": s.SNP, "ucodeSPL": s.Microcode} {
			q.Set(name, fmt.Sprintf("%02d", v))
		}
		if r.generation == snp.Turin {
			q.Set("fmcSPL", fmt.Sprintf("%02d", *s.FMC))
		}
		return dir + hex.EncodeToString(r.chip), q
	case kindTCBInfo, kindQEIdentity, kindPCKCRL, kindRootCRL:
	}
	return "", nil
}
