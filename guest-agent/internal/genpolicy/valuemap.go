package genpolicy

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// valueMap is a config map or a secret that stands beside the pod.
type valueMap struct {
	metadata
	secret bool
	values map[string]string
}

// Kinds of objects that hold values.
const (
	kindConfigMap = "ConfigMap"
	kindSecret    = "Secret"
)

func kindOf(secret bool) string {
	if secret {
		return "secret"
	}
	return "config map"
}

// parseValueMap reads a ConfigMap or a Secret. Values that are no text, of
// binaryData, are never variables.
func parseValueMap(text []byte) (*valueMap, error) {
	var o struct {
		Kind       string            `json:"kind"`
		Metadata   metadata          `json:"metadata"`
		Data       map[string]string `json:"data"`
		StringData map[string]string `json:"stringData"`
	}
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, errors.New("a config map or a secret has values that are no texts, or another form")
	}
	m := &valueMap{metadata: o.Metadata, secret: o.Kind == kindSecret, values: map[string]string{}}
	if !m.secret {
		maps.Copy(m.values, o.Data)
		return m, nil
	}
	for key, value := range o.Data {
		raw, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return nil, fmt.Errorf("secret %q: the value of %.64q is no base64", o.Metadata.Name, key)
		}
		m.values[key] = string(raw)
	}
	maps.Copy(m.values, o.StringData)
	return m, nil
}

// valueMap finds one beside the pod, nil if there is none.
func (p *pod) valueMap(name string, secret bool) (*valueMap, error) {
	fits := func(m *valueMap) bool {
		return m.Name == name && m.secret == secret && (m.Namespace == p.Namespace || m.Namespace == "" || p.Namespace == "")
	}
	i := slices.IndexFunc(p.beside, fits)
	if i < 0 {
		return nil, nil //nolint:nilnil // there may be none
	}
	if slices.ContainsFunc(p.beside[i+1:], fits) {
		return nil, fmt.Errorf("%s %q is in the file more than once", kindOf(secret), name)
	}
	return p.beside[i], nil
}
