package collateral

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Names in Intel's certificates.
const (
	nameIntelRoot   = "Intel SGX Root CA"
	nameIntelSigner = "Intel SGX TCB Signing"
)

// pckAuthorities are those that certify platforms, by the names in their
// certificates.
var pckAuthorities = map[string]dcap.CA{
	"Intel SGX PCK Platform CA":  dcap.Platform,
	"Intel SGX PCK Processor CA": dcap.Processor,
}

// addJSON takes an item of a store, a document of Intel, or many of them.
func (h *heap) addJSON(path string, raw []byte) error {
	members, err := strictjson.Members(raw)
	if err != nil {
		return err
	}
	has := func(name string) bool { _, ok := members[name]; return ok }
	switch {
	case has("name") && has("body"):
		var i Item
		if err := strictjson.Decode(raw, &i); err != nil {
			return err
		}
		i.Source = path
		h.items = append(h.items, i)
	case has("signature") && (has("tcbInfo") || has("enclaveIdentity")):
		h.papers = append(h.papers, found{path, raw})
	case has("collaterals"):
		return h.addPlatforms(path, members["collaterals"])
	default:
		return errUnknown
	}
	return nil
}

// paper makes an item of a document of Intel, with the chain of whoever among
// the files signed it.
func (h *heap) paper(raw []byte) (Item, error) {
	var d struct {
		TCBInfo struct {
			ID    string `json:"id"`
			FMSPC string `json:"fmspc"`
		} `json:"tcbInfo"`
		Identity struct {
			ID string `json:"id"`
		} `json:"enclaveIdentity"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return Item{}, err
	}
	i := Item{Body: raw}
	switch id := d.TCBInfo.ID + d.Identity.ID; id {
	case "TDX", "SGX":
		fmspc, err := FMSPC(d.TCBInfo.FMSPC)
		if err != nil {
			return i, err
		}
		i.Name = TCBInfo(dcap.TEE(strings.ToLower(id)), fmspc)
	case "TD_QE":
		i.Name = QEIdentity(dcap.TDX)
	case "QE":
		i.Name = QEIdentity(dcap.SGX)
	default:
		return i, fmt.Errorf("a document for %q: %w", id, errUnknown)
	}
	for _, c := range h.pool {
		if c.Subject.CommonName != nameIntelSigner {
			continue
		}
		i.Chain = h.chain(c)
		if _, err := h.trust.read(i); err == nil {
			return i, nil
		}
	}
	return i, errors.New("none of the certificates at hand signed it")
}

// platforms is what Intel's PcsClientTool writes for a PCCS without a network.
type platforms struct {
	TCBInfos []struct {
		SGX      json.RawMessage `json:"sgx_tcbinfo"`
		TDX      json.RawMessage `json:"tdx_tcbinfo"`
		EarlySGX json.RawMessage `json:"sgx_tcbinfo_early"`
		EarlyTDX json.RawMessage `json:"tdx_tcbinfo_early"`
	} `json:"tcbinfos"`
	Lists struct {
		Processor string `json:"processorCrl"`
		Platform  string `json:"platformCrl"`
	} `json:"pckcacrl"`
	QE        json.RawMessage            `json:"qeidentity"`
	TDQE      json.RawMessage            `json:"tdqeidentity"`
	EarlyQE   json.RawMessage            `json:"qeidentity_early"`
	EarlyTDQE json.RawMessage            `json:"tdqeidentity_early"`
	Chains    map[string]json.RawMessage `json:"certificates"`
	RootList  string                     `json:"rootcacrl"`
}

// addPlatforms takes all of such a file. Where it has a standard and an early
// evaluation, the standard one is taken.
func (h *heap) addPlatforms(path string, raw json.RawMessage) error {
	var p platforms
	if err := json.Unmarshal(raw, &p); err != nil {
		return err
	}
	pairs := [][2]json.RawMessage{{p.QE, p.EarlyQE}, {p.TDQE, p.EarlyTDQE}}
	for _, i := range p.TCBInfos {
		pairs = append(pairs, [2]json.RawMessage{i.SGX, i.EarlySGX}, [2]json.RawMessage{i.TDX, i.EarlyTDX})
	}
	var errs []error
	for _, pair := range pairs {
		for _, doc := range pair {
			if len(doc) == 0 || string(doc) == "null" || string(doc) == `""` {
				continue
			}
			body, err := compact(doc)
			h.papers = append(h.papers, found{path, body})
			errs = append(errs, err)
			break
		}
	}
	for _, text := range []string{p.Lists.Processor, p.Lists.Platform, p.RootList} {
		if text == "" {
			continue
		}
		der, err := hex.DecodeString(text)
		if err == nil {
			err = h.addDER(path, der)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, h.addChains(path, p.Chains))...)
}

// addChains takes the chains: PEM, URL-encoded or not, one or several under a
// name.
func (h *heap) addChains(path string, chains map[string]json.RawMessage) error {
	var errs []error
	for name, raw := range chains {
		var text string
		if json.Unmarshal(raw, &text) == nil {
			chain, err := unescape(text)
			errs = append(errs, err, h.addPEM(path, chain))
			continue
		}
		var several map[string]string
		if err := json.Unmarshal(raw, &several); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		for _, text := range several {
			chain, err := unescape(text)
			errs = append(errs, err, h.addPEM(path, chain))
		}
	}
	return errors.Join(errs...)
}

// compact returns a document as it was before a program indented it, or put it
// into a string: without spaces, as Intel signs.
func compact(raw json.RawMessage) ([]byte, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return []byte(text), nil
	}
	var out bytes.Buffer
	err := json.Compact(&out, raw)
	return out.Bytes(), err
}
