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
			URL          string `toml:"url"`
			Cert         string `toml:"cert"`
			KeyAlgorithm string `toml:"tee_key_algorithm"`
		} `toml:"kbs"`
		AS *struct {
			URL string `toml:"url"`
		} `toml:"coco_as"`
	} `toml:"token_configs"`
	EventLog struct {
		Enable bool `toml:"enable_eventlog"`
		PCR    *int `toml:"init_pcr"`
	} `toml:"eventlog_config"`
	Log logTable `toml:"log"`
}

type logTable struct {
	Level string `toml:"level"`
}

// cdhDocument is the part of cdh.toml that we use (guest-protocol 8.2, 14.1),
// and our own table beside it.
type cdhDocument struct {
	KBC *struct {
		Name    string `toml:"name"`
		URL     string `toml:"url"`
		KBSCert string `toml:"kbs_cert"`
	} `toml:"kbc"`
	SkipSealedVerification bool              `toml:"skip_sealed_secret_verification"`
	Socket                 string            `toml:"socket"`
	Credentials            []credentialTable `toml:"credentials"`
	Image                  *imageTable       `toml:"image"`
	Log                    logTable          `toml:"log"`
	AA                     struct {
		Socket string `toml:"aa_socket"`
	} `toml:"aa"`
	Vouchsafe struct {
		InsecurePlainHTTP     bool `toml:"insecure_plain_http"`
		InsecureTokenKeyPairs bool `toml:"insecure_token_keypairs"`
		InsecureNoAgentPolicy bool `toml:"insecure_no_agent_policy"`
		InsecureLearnPolicy   bool `toml:"insecure_learn_agent_policy"`
		// Brokers come after the one of [kbc].
		Brokers []standbyTable `toml:"brokers"`
		// Leases: seconds, and keep, drop or stop.
		LeaseInterval *int64 `toml:"lease_interval"`
		LeaseGrace    int64  `toml:"lease_grace"`
		OnLeaseEnd    string `toml:"on_lease_end"`
		// Access gives containers what the agent can have.
		Access []AccessRule `toml:"access"`
		// RegistryTLS is for registries that need more than [image] can say.
		RegistryTLS []registryTLSTable `toml:"registry_tls"`
		// ImageKeys locate private keys that open layers.
		ImageKeys []string `toml:"image_keys"`
		imageStoreTable
		// ImageDisk is for [Agent.ImageDisk].
		ImageDisk string `toml:"image_disk"`
		// ListenTLS is for runtimes that reach the agent over TCP.
		ListenTLS *listenTLSTable `toml:"listen_tls"`
	} `toml:"vouchsafe"`
}

// listenTLSTable holds PEM texts.
type listenTLSTable struct {
	Certificate string `toml:"certificate"`
	Key         string `toml:"key"`
	ClientCA    string `toml:"client_ca"`
}

// documents are both files of init-data, parsed.
type documents struct {
	aa       *aaDocument
	cdh      *cdhDocument
	warnings []string
}

func parseDocuments(data map[string]string) (documents, error) {
	var d documents
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
			err = errors.Join(d.cdh.refuseUnbuilt(), refuseUnknown(w))
		}
		if err != nil {
			return d, fmt.Errorf("%s: %w", DocumentCDH, err)
		}
		d.warn(DocumentCDH, w)
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
	return nil
}

// refuseUnknown refuses unknown keys where one may have been meant to forbid
// something: in what says where images come from.
func refuseUnknown(unknown []string) error {
	for _, key := range unknown {
		for _, strict := range []string{"image.registry_config", "image.image_pull_proxy", "vouchsafe"} {
			if strings.HasPrefix(key, strict+".") {
				return fmt.Errorf("%s: there is no such key", key)
			}
		}
	}
	return nil
}
