package settings

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// maxDocument bounds aa.toml and cdh.toml in bytes. The longest part of them
// in practice is a policy or a few certificates.
const maxDocument = 1 << 20

// aaDocument is the part of aa.toml that we use (guest-protocol 3.2).
type aaDocument struct {
	TokenConfigs struct {
		KBS *struct {
			URL  string `toml:"url"`
			Cert string `toml:"cert"`
		} `toml:"kbs"`
	} `toml:"token_configs"`
	EventLog struct {
		Enable bool `toml:"enable_eventlog"`
		PCR    *int `toml:"init_pcr"`
	} `toml:"eventlog_config"`
}

// cdhDocument is the part of cdh.toml that we use (guest-protocol 8.2, 14.1),
// and our own table beside it.
type cdhDocument struct {
	KBC *struct {
		Name    string `toml:"name"`
		URL     string `toml:"url"`
		KBSCert string `toml:"kbs_cert"`
	} `toml:"kbc"`
	Image     *imageTable `toml:"image"`
	Vouchsafe struct {
		InsecurePlainHTTP     bool `toml:"insecure_plain_http"`
		InsecureNoAgentPolicy bool `toml:"insecure_no_agent_policy"`
	} `toml:"vouchsafe"`
}

type imageTable struct {
	PolicyURI        string         `toml:"image_security_policy_uri"`
	Policy           string         `toml:"image_security_policy"`
	ExtraRoots       []string       `toml:"extra_root_certificates"`
	RegistryConfig   *registryTable `toml:"registry_config"`
	RegistryURI      string         `toml:"registry_configuration_uri"`
	CredentialsURI   string         `toml:"authenticated_registry_credentials_uri"`
	SigstoreConfig   any            `toml:"sigstore_config"`
	SigstoreURI      string         `toml:"sigstore_config_uri"`
	Proxy            any            `toml:"image_pull_proxy"`
	WorkDir          string         `toml:"work_dir"` // chosen by the agent, see refuseUnbuilt
	ConcurrentLayers int            `toml:"max_concurrent_layer_downloads_per_image"`
}

// registryTable is the inline registries.conf (guest-protocol 14.5). Only
// "insecure" is built; everything that would redirect or block is refused.
type registryTable struct {
	Unqualified []string `toml:"unqualified-search-registries"`
	Registry    []struct {
		Prefix   string `toml:"prefix"`
		Location string `toml:"location"`
		Insecure bool   `toml:"insecure"`
		Blocked  bool   `toml:"blocked"`
		Mirror   []any  `toml:"mirror"`
	} `toml:"registry"`
}

// documents are both files of init-data, parsed.
type documents struct {
	aa       *aaDocument
	cdh      *cdhDocument
	warnings []string
}

func parseDocuments(data map[string]string) (documents, error) {
	var d documents
	if _, ok := data[DocumentPolicy]; ok {
		// Its owner relies on it. A guest that would ignore it must not run.
		return d, fmt.Errorf("%s: policies over the host's requests are not evaluated yet", DocumentPolicy)
	}
	if text, ok := data[DocumentAA]; ok {
		d.aa = new(aaDocument)
		w, err := decode(text, d.aa)
		if err != nil {
			return d, fmt.Errorf("%s: %w", DocumentAA, err)
		}
		d.warn(DocumentAA, w)
	}
	if text, ok := data[DocumentCDH]; ok {
		d.cdh = new(cdhDocument)
		w, err := decode(text, d.cdh)
		if err == nil {
			err = d.cdh.refuseUnbuilt()
		}
		if err != nil {
			return d, fmt.Errorf("%s: %w", DocumentCDH, err)
		}
		d.warn(DocumentCDH, append(w, d.cdh.ignored()...))
	}
	return d, nil
}

func (d *documents) warn(document string, keys []string) {
	for _, k := range keys {
		d.warnings = append(d.warnings, document+": "+k)
	}
}

// decode reads TOML into v and returns the keys that v has no place for.
func decode(text string, v any) (unknown []string, err error) {
	if len(text) > maxDocument {
		return nil, fmt.Errorf("%d bytes long, at most %d are read", len(text), maxDocument)
	}
	dec := toml.NewDecoder(bytes.NewReader([]byte(text)))
	err = dec.DisallowUnknownFields().Decode(v)
	var strict *toml.StrictMissingError
	if !errors.As(err, &strict) {
		return nil, err
	}
	for _, e := range strict.Errors {
		unknown = append(unknown, strings.Join(e.Key(), "."))
	}
	return unknown, toml.Unmarshal([]byte(text), v)
}

// refuseUnbuilt refuses the keys that restrict or redirect and are not built
// yet. Pulling on as if they were not there would do what the owner forbade.
func (d *cdhDocument) refuseUnbuilt() error {
	if d.KBC != nil && d.KBC.Name != "" && d.KBC.Name != kbcName {
		return fmt.Errorf("kbc.name %q is not supported, only %q is", d.KBC.Name, kbcName)
	}
	if d.Image == nil {
		return nil
	}
	if d.Image.RegistryURI != "" && d.Image.RegistryConfig == nil { // inline wins, 14.1
		return errors.New("image.registry_configuration_uri is not supported yet")
	}
	if d.Image.RegistryConfig == nil {
		return nil
	}
	for i, r := range d.Image.RegistryConfig.Registry {
		switch {
		case r.Blocked:
			return fmt.Errorf("image.registry_config.registry[%d]: blocked is not supported yet", i)
		case len(r.Mirror) > 0:
			return fmt.Errorf("image.registry_config.registry[%d]: mirror is not supported yet", i)
		case r.Location == "" || (r.Prefix != "" && r.Prefix != r.Location):
			return fmt.Errorf("image.registry_config.registry[%d]: prefix is not supported yet, only location is", i)
		case strings.ContainsAny(r.Location, "/*@ "):
			return fmt.Errorf("image.registry_config.registry[%d]: location must be a host or host:port", i)
		}
	}
	return nil
}

// ignored lists the known keys that are set and have no effect here. Without
// them a pull can only fail, never succeed where it should not.
func (d *cdhDocument) ignored() []string {
	i := d.Image
	if i == nil {
		return nil
	}
	var keys []string
	for _, k := range []struct {
		name string
		set  bool
	}{
		{"authenticated_registry_credentials_uri", i.CredentialsURI != ""},
		{"image_pull_proxy", i.Proxy != nil},
		{"work_dir", i.WorkDir != ""},
		{"max_concurrent_layer_downloads_per_image", i.ConcurrentLayers != 0},
		{"registry_config.unqualified-search-registries", i.RegistryConfig != nil && i.RegistryConfig.Unqualified != nil},
	} {
		if k.set {
			keys = append(keys, "image."+k.name)
		}
	}
	return keys
}
