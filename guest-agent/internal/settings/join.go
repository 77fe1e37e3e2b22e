package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

// keyAlgorithms are those of the guest's key pairs, "" for the usual one.
var keyAlgorithms = []string{"", "ECDH-ES+A256KW-P256", "ECDH-ES+A256KW-P384", "ECDH-ES+A256KW-P521", "RSA-OAEP-256", "ML-KEM-768+A192KW"}

// kbcName is the only key broker client there is: the KBS protocol.
const kbcName = "cc_kbc"

// joinBroker picks the broker. Upstream attests where aa.toml says and fetches
// where cdh.toml says; here one handshake serves both, so the two must agree.
// agent.aa_kbc_params counts only when neither document exists (3.2, 8.2).
func joinBroker(cmd commandLine, docs documents) (Broker, error) {
	b := Broker{InsecurePlainHTTP: cmd.insecurePlainHTTP}
	if docs.cdh != nil {
		b.InsecurePlainHTTP = b.InsecurePlainHTTP || docs.cdh.Vouchsafe.InsecurePlainHTTP
	}
	if docs.aa == nil && docs.cdh == nil && cmd.kbcParams != "" {
		name, uri, ok := strings.Cut(cmd.kbcParams, "::")
		if !ok || strings.Contains(uri, "::") {
			return b, errors.New("agent.aa_kbc_params: want <kbc-name>::<url>")
		}
		if name != kbcName {
			return b, fmt.Errorf("agent.aa_kbc_params: kbc %q is not supported, only %q is", name, kbcName)
		}
		b.URL = uri
	}
	var certs []string
	if docs.aa != nil && docs.aa.TokenConfigs.KBS != nil {
		b.URL = docs.aa.TokenConfigs.KBS.URL
		b.KeyAlgorithm = docs.aa.TokenConfigs.KBS.KeyAlgorithm
		certs = append(certs, docs.aa.TokenConfigs.KBS.Cert)
	}
	b.URL = strings.TrimRight(b.URL, "/")
	if docs.cdh != nil && docs.cdh.KBC != nil {
		u := strings.TrimRight(docs.cdh.KBC.URL, "/")
		if b.URL != "" && u != "" && u != b.URL {
			return b, errors.New("aa.toml and cdh.toml name different brokers: token_configs.kbs.url and kbc.url must agree")
		}
		b.URL = max(b.URL, u) // equal, or one of them empty
		certs = append(certs, docs.cdh.KBC.KBSCert)
	}
	b.RootCertificates = joinPEM(certs)
	return b, b.validate()
}

// maxStandby bounds the brokers beside the first one.
const maxStandby = 7

// standbyTable is one of [[vouchsafe.brokers]] in cdh.toml.
type standbyTable struct {
	URL       string `toml:"url"`
	Roots     string `toml:"root_certificates"`
	NamedOnly bool   `toml:"named_only"`
}

// joinStandby reads the brokers that come after the field's one.
func joinStandby(first Broker, docs documents) (all []Broker, err error) {
	if docs.cdh == nil {
		return nil, nil
	}
	tables := docs.cdh.Vouchsafe.Brokers
	if len(tables) > maxStandby {
		return nil, fmt.Errorf("vouchsafe.brokers: at most %d", maxStandby)
	}
	seen := map[string]bool{first.URL: true}
	for n, t := range tables {
		b := Broker{
			URL: strings.TrimRight(t.URL, "/"), RootCertificates: joinPEM([]string{t.Roots}),
			InsecurePlainHTTP: first.InsecurePlainHTTP, KeyAlgorithm: first.KeyAlgorithm, NamedOnly: t.NamedOnly,
		}
		switch err := b.validate(); {
		case err != nil:
			return nil, fmt.Errorf("vouchsafe.brokers[%d]: %w", n, err)
		case first.URL == "":
			return nil, errors.New("vouchsafe.brokers: these stand in for the broker of token_configs.kbs or kbc, and there is none")
		case b.URL == "", seen[b.URL]:
			return nil, fmt.Errorf("vouchsafe.brokers[%d]: no URL, or one that was named before", n)
		}
		seen[b.URL] = true
		all = append(all, b)
	}
	return all, nil
}

func (b Broker) validate() error {
	if b.URL == "" {
		return nil
	}
	u, err := url.Parse(b.URL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("the broker's URL is not of the form https://host[:port][/path]")
	}
	switch {
	case u.Scheme == "http" && !b.InsecurePlainHTTP:
		return errors.New("the broker's URL is http://; allow that with insecure_plain_http = true in [vouchsafe] of cdh.toml, or vouchsafe.insecure_plain_http=true on the command line")
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("the broker's URL has scheme %q, want https", u.Scheme)
	}
	if _, err := b.RootCAs(); err != nil {
		return fmt.Errorf("the broker's certificate: %w", err)
	}
	if !slices.Contains(keyAlgorithms, b.KeyAlgorithm) {
		return fmt.Errorf("token_configs.kbs.tee_key_algorithm %.40q: want one of %s", b.KeyAlgorithm, strings.Join(keyAlgorithms[1:], ", "))
	}
	return nil
}

// lookaside takes sigstore_config, which is the text of a registries.d document
// or a table of the same members: JSON is YAML.
func lookaside(v any) ([]byte, error) {
	var raw []byte
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		raw = []byte(v)
	default:
		var err error
		if raw, err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	_, err := trust.ParseLookaside(raw)
	return raw, err
}

// joinEventLog reads [eventlog_config]. PCR 0 is the firmware's, so that nobody
// can mean it.
func joinEventLog(docs documents) (EventLog, error) {
	if docs.aa == nil {
		return EventLog{}, nil
	}
	t := docs.aa.EventLog
	if t.PCR == nil {
		return EventLog{Enabled: t.Enable}, nil
	}
	if *t.PCR < 1 || *t.PCR > 23 {
		return EventLog{}, fmt.Errorf("eventlog_config.init_pcr is %d, want 1 to 23", *t.PCR)
	}
	return EventLog{Enabled: t.Enable, PCR: *t.PCR}, nil
}

// joinPEM joins PEM texts, skipping empty ones: upstream stores an empty
// kbs_cert as it is, which means "none" (8.2).
func joinPEM(texts []string) []byte {
	var out []byte
	for _, t := range texts {
		if strings.TrimSpace(t) != "" {
			out = append(append(out, t...), '\n')
		}
	}
	return out
}
