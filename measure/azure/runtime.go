package azure

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// attestationKey is the name of the AK among the keys of the runtime data.
const attestationKey = "HCLAkPub"

// maxKeys bounds the keys in the runtime data. There are two.
const maxKeys = 16

// RuntimeData is the JSON that the hardware report is bound to.
type RuntimeData struct {
	AK            *rsa.PublicKey
	UserData      []byte         // what the guest asked the paravisor to bind, 64 bytes; nil if there is none
	Configuration measure.Claims // of the VM, for example secure-boot; nil if there is none
}

// ParseRuntimeData reads the runtime data. Exactly one key must be named as
// the AK, and no member may come twice. It judges nothing.
func ParseRuntimeData(raw []byte) (*RuntimeData, error) {
	members, err := strictjson.Members(raw)
	if err != nil {
		return nil, fmt.Errorf("HCL runtime data: %w", err)
	}
	r := new(RuntimeData)
	if r.AK, err = findAK(members["keys"]); err != nil {
		return nil, fmt.Errorf("HCL runtime data: keys: %w", err)
	}
	if text, ok := members["user-data"]; ok {
		var s string
		if err := json.Unmarshal(text, &s); err != nil {
			return nil, errors.New("HCL runtime data: user-data is not a string")
		}
		if r.UserData, err = hex.DecodeString(s); err != nil || len(r.UserData) != len(measure.ReportData{}) {
			return nil, errors.New("HCL runtime data: user-data is not the hex of 64 bytes")
		}
	}
	if raw, ok := members["vm-configuration"]; ok {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if err := dec.Decode(&r.Configuration); err != nil {
			return nil, errors.New("HCL runtime data: vm-configuration is not an object")
		}
	}
	return r, nil
}

// jwk is a key of the runtime data.
type jwk struct {
	ID         string   `json:"kid"`
	Operations []string `json:"key_ops"`
	Type       string   `json:"kty"`
	E          string   `json:"e"`
	N          string   `json:"n"`
}

func findAK(raw json.RawMessage) (*rsa.PublicKey, error) {
	var keys []json.RawMessage
	if err := json.Unmarshal(raw, &keys); err != nil || len(keys) > maxKeys {
		return nil, fmt.Errorf("not a list of at most %d", maxKeys)
	}
	var ak *rsa.PublicKey
	for _, raw := range keys {
		var k jwk
		if err := json.Unmarshal(raw, &k); err != nil {
			return nil, errors.New("an entry is not a key")
		}
		if k.ID != attestationKey {
			continue
		}
		if ak != nil {
			return nil, errors.New("two keys are named " + attestationKey)
		}
		var err error
		if ak, err = k.rsa(); err != nil {
			return nil, fmt.Errorf("%s: %w", attestationKey, err)
		}
	}
	if ak == nil {
		return nil, errors.New("none is named " + attestationKey)
	}
	return ak, nil
}

func (k jwk) rsa() (*rsa.PublicKey, error) {
	n, errN := base64.RawURLEncoding.Strict().DecodeString(k.N)
	e, errE := base64.RawURLEncoding.Strict().DecodeString(k.E)
	exponent := new(big.Int).SetBytes(e)
	switch {
	case k.Type != "RSA":
		return nil, fmt.Errorf("a key of type %q", k.Type)
	case errN != nil || errE != nil || len(n) == 0 || len(n) > 1024 || len(e) == 0 || len(e) > 4:
		return nil, errors.New("modulus or exponent is malformed")
	case len(k.Operations) != 1 || k.Operations[0] != "sign":
		return nil, fmt.Errorf("a key for %v", k.Operations)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
}
