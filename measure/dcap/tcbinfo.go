package dcap

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Limits on collateral. Intel's longest TCB info has about 60 kB.
const (
	maxDocument  = 1 << 20 // bytes
	maxTCBLevels = 512
	components   = 16
)

// TCBInfo says what the TCBs of a kind of platform are worth (Intel PCS API
// version 4, TCB info version 3).
type TCBInfo struct {
	ID               string           `json:"id"` // "SGX" or "TDX"
	Version          int              `json:"version"`
	IssueDate        time.Time        `json:"issueDate"`
	NextUpdate       time.Time        `json:"nextUpdate"`
	FMSPC            hexBytes         `json:"fmspc"`
	PCEID            hexBytes         `json:"pceId"`
	TCBType          int              `json:"tcbType"`
	EvaluationNumber uint32           `json:"tcbEvaluationDataNumber"`
	Module           *ModuleIdentity  `json:"tdxModule,omitempty"`
	Modules          []ModuleIdentity `json:"tdxModuleIdentities,omitempty"`
	Levels           []TCBLevel       `json:"tcbLevels"`
}

// ModuleIdentity is a TDX module that Intel made. Modules of version 1 and
// later have an identity of their own each, with their own TCB levels.
type ModuleIdentity struct {
	ID             string         `json:"id,omitempty"` // "TDX_" and the module's version in hex
	Signer         hexBytes       `json:"mrsigner"`
	Attributes     hexBytes       `json:"attributes"`
	AttributesMask hexBytes       `json:"attributesMask"`
	Levels         []EnclaveLevel `json:"tcbLevels,omitempty"`
}

// TCBLevel is what a platform is worth that has at least these SVNs.
type TCBLevel struct {
	TCB struct {
		SGX    []Component `json:"sgxtcbcomponents"`
		PCESVN uint16      `json:"pcesvn"`
		TDX    []Component `json:"tdxtcbcomponents,omitempty"`
	} `json:"tcb"`
	Worth
}

// Component is one part of a TCB.
type Component struct {
	SVN uint8 `json:"svn"`
}

// EnclaveLevel is what an enclave or a TDX module is worth that has at least
// this SVN.
type EnclaveLevel struct {
	TCB struct {
		ISVSVN uint16 `json:"isvsvn"`
	} `json:"tcb"`
	Worth
}

// Worth is Intel's judgement of a level.
type Worth struct {
	Date       time.Time `json:"tcbDate"`
	Status     Status    `json:"tcbStatus"`
	Advisories []string  `json:"advisoryIDs,omitempty"`
}

// QEIdentity says which quoting enclaves are Intel's, and what they are worth
// (Intel PCS API version 4, enclave identity version 2).
type QEIdentity struct {
	ID               string         `json:"id"` // "QE" or "TD_QE"
	Version          int            `json:"version"`
	IssueDate        time.Time      `json:"issueDate"`
	NextUpdate       time.Time      `json:"nextUpdate"`
	EvaluationNumber uint32         `json:"tcbEvaluationDataNumber"`
	MiscSelect       hexBytes       `json:"miscselect"`
	MiscSelectMask   hexBytes       `json:"miscselectMask"`
	Attributes       hexBytes       `json:"attributes"`
	AttributesMask   hexBytes       `json:"attributesMask"`
	MRSigner         hexBytes       `json:"mrsigner"`
	ISVProdID        uint16         `json:"isvprodid"`
	Levels           []EnclaveLevel `json:"tcbLevels"`
}

// hexBytes is hex in JSON, in either case.
type hexBytes []byte

// MarshalJSON writes lower-case hex.
func (h hexBytes) MarshalJSON() ([]byte, error) { return json.Marshal(hex.EncodeToString(h)) }

// UnmarshalJSON reads hex of either case.
func (h *hexBytes) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return err
	}
	b, err := hex.DecodeString(text)
	*h = b
	return err
}

// document splits what the PCS answers into the member that is signed, byte
// for byte, and its signature.
func document(raw []byte, member string) (signed json.RawMessage, signature []byte, err error) {
	if len(raw) > maxDocument {
		return nil, nil, fmt.Errorf("%d bytes, at most %d are allowed", len(raw), maxDocument)
	}
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(raw, &parts); err != nil {
		return nil, nil, err
	}
	signed = parts[member]
	if signed == nil {
		return nil, nil, fmt.Errorf("it has no %s", member)
	}
	var sig hexBytes
	if err := json.Unmarshal(parts["signature"], &sig); err != nil || len(sig) != 64 {
		return nil, nil, errors.New("its signature is not the hex of 64 bytes")
	}
	return signed, sig, nil
}

// parseTCBInfo reads the signed member of a TCB info.
func parseTCBInfo(signed []byte) (*TCBInfo, error) {
	var i TCBInfo
	if err := json.Unmarshal(signed, &i); err != nil {
		return nil, err
	}
	if i.Version != 3 || i.TCBType != 0 {
		return nil, fmt.Errorf("version %d of TCB type %d, want version 3 of type 0", i.Version, i.TCBType)
	}
	if len(i.FMSPC) != 6 || len(i.PCEID) != 2 {
		return nil, errors.New("fmspc or pceId has the wrong length")
	}
	if len(i.Levels) == 0 || len(i.Levels) > maxTCBLevels || len(i.Modules) > maxTCBLevels {
		return nil, fmt.Errorf("%d TCB levels and %d modules, want 1 to %d", len(i.Levels), len(i.Modules), maxTCBLevels)
	}
	tdx := 0
	if i.ID == "TDX" {
		tdx = components
	}
	for n, l := range i.Levels {
		if len(l.TCB.SGX) != components || len(l.TCB.TDX) != tdx {
			return nil, fmt.Errorf("TCB level %d has %d and %d components, want %d and %d", n, len(l.TCB.SGX), len(l.TCB.TDX), components, tdx)
		}
		if err := l.Status.valid(); err != nil {
			return nil, fmt.Errorf("TCB level %d: %w", n, err)
		}
	}
	for n := range i.Modules {
		if err := i.Modules[n].valid(); err != nil {
			return nil, err
		}
	}
	if i.Module == nil {
		return &i, nil
	}
	return &i, i.Module.valid()
}

func (m *ModuleIdentity) valid() error {
	if len(m.Signer) != 48 || len(m.Attributes) != 8 || len(m.AttributesMask) != 8 {
		return fmt.Errorf("TDX module %q: a field has the wrong length", m.ID)
	}
	if err := validLevels(m.Levels); err != nil {
		return fmt.Errorf("TDX module %q: %w", m.ID, err)
	}
	return nil
}

// parseQEIdentity reads the signed member of an enclave identity.
func parseQEIdentity(signed []byte) (*QEIdentity, error) {
	var i QEIdentity
	if err := json.Unmarshal(signed, &i); err != nil {
		return nil, err
	}
	if i.Version != 2 {
		return nil, fmt.Errorf("version %d, want 2", i.Version)
	}
	if len(i.MiscSelect) != 4 || len(i.MiscSelectMask) != 4 || len(i.Attributes) != 16 || len(i.AttributesMask) != 16 || len(i.MRSigner) != 32 {
		return nil, errors.New("a field has the wrong length")
	}
	if len(i.Levels) == 0 {
		return nil, errors.New("it has no TCB levels")
	}
	return &i, validLevels(i.Levels)
}

func validLevels(levels []EnclaveLevel) error {
	if len(levels) > maxTCBLevels {
		return fmt.Errorf("%d TCB levels, at most %d are allowed", len(levels), maxTCBLevels)
	}
	for n, l := range levels {
		if err := l.Status.valid(); err != nil {
			return fmt.Errorf("TCB level %d: %w", n, err)
		}
	}
	return nil
}
