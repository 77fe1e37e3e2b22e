package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Claims are those of a verified token.
type Claims struct {
	ID      string
	Expires time.Time
	Raw     json.RawMessage // the complete payload, which resource policies read
	Submods map[string]AppraisalClaims
}

// AppraisalClaims are the members of a submod that the broker itself reads.
type AppraisalClaims struct {
	Status   Status          `json:"ear.status"`
	PolicyID string          `json:"ear.appraisal-policy-id"`
	Evidence json.RawMessage `json:"ear.veraison.annotated-evidence"`
}

// TEEKey returns the guest's public key (kbs-protocol 5.2).
func (c Claims) TEEKey() (api.JWK, error) {
	var evidence struct {
		RuntimeData struct {
			Key api.JWK `json:"tee-pubkey"`
		} `json:"runtime_data_claims"`
	}
	if err := json.Unmarshal(c.Submods[CPU].Evidence, &evidence); err != nil {
		return api.JWK{}, fmt.Errorf("token evidence: %w", err)
	}
	if evidence.RuntimeData.Key.Kty == "" {
		return api.JWK{}, errors.New("token has no tee-pubkey")
	}
	return evidence.RuntimeData.Key, nil
}
