package settings

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

func document(files map[string]string) []byte {
	var b strings.Builder
	b.WriteString("version = \"0.1.0\"\nalgorithm = \"sha384\"\n\n[data]\n")
	for name, text := range files {
		fmt.Fprintf(&b, "%q = '''\n%s\n'''\n", name, text)
	}
	return []byte(b.String())
}

func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestLoadInitData(t *testing.T) {
	cert := certificate(t)
	raw := document(map[string]string{
		"aa.toml": "[token_configs.kbs]\nurl = \"https://kbs.example:8080/\"\ncert = \"\"\"" + cert + "\"\"\"\n[eventlog_config]\ninit_pcr = 17\nenable_eventlog = true\n[later]\nkey = \"info\"",
		"cdh.toml": `later = "a key of tomorrow"
[kbc]
name = "cc_kbc"
url = "https://kbs.example:8080"
kbs_cert = ""
[image]
image_security_policy_uri = "kbs:///default/security-policy/test"
image_security_policy = '{"default":[{"type":"reject"}],"transports":{}}'
work_dir = "/elsewhere"
extra_root_certificates = ["""` + cert + `"""]
sigstore_config_uri = "kbs:///default/sigstore-config/test"
[image.sigstore_config.docker."quay.io/org"]
lookaside = "https://sigs.example/s"
[[image.registry_config.registry]]
location = "registry.local:5000"
insecure = true
[[image.registry_config.registry]]
location = "quay.io"`,
	})
	var device bytes.Buffer
	if err := initdata.WriteDevice(&device, raw); err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string][]byte{"raw": raw, "device": device.Bytes()} {
		t.Run(name, func(t *testing.T) {
			s, err := Load(Sources{InitData: src, CommandLine: "quiet agent.log=debug agent.image_pull_timeout=60 agent.aa_kbc_params=cc_kbc::https://other agent.image_policy_file=file:///p agent.debug_console\n"})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(s.InitData.Raw(), raw) {
				t.Error("the document's bytes changed")
			}
			if s.Broker.URL != "https://kbs.example:8080" || s.Broker.InsecurePlainHTTP {
				t.Errorf("broker %+v", s.Broker)
			}
			if pool, err := s.Broker.RootCAs(); err != nil || pool == nil {
				t.Errorf("broker roots: %v %v", pool, err)
			}
			if s.Image.PolicyURI != "kbs:///default/security-policy/test" || len(s.Image.PolicyInline) == 0 {
				t.Errorf("policy %+v", s.Image)
			}
			if s.Image.LookasideURI != "kbs:///default/sigstore-config/test" || !strings.Contains(string(s.Image.LookasideInline), "https://sigs.example/s") {
				t.Errorf("lookaside %+v", s.Image)
			}
			if r := s.Image.Registries; r == nil || len(r.Rules) != 2 || !r.Rules[0].Insecure || r.Rules[1].Insecure {
				t.Errorf("registries %+v", r)
			}
			if got := s.Image.PlainHTTPHosts(); !slices.Equal(got, []string{"registry.local:5000"}) {
				t.Errorf("plain http hosts %q", got)
			}
			if s.Image.WorkDir != "/elsewhere" {
				t.Errorf("work dir %q", s.Image.WorkDir)
			}
			if pool, err := s.Image.RootCAs(); err != nil || pool == nil {
				t.Errorf("registry roots: %v %v", pool, err)
			}
			if s.Agent.LogLevel != slog.LevelDebug || s.Agent.ImagePullTimeout != time.Minute || s.Agent.DataHubTimeout != 50*time.Second {
				t.Errorf("agent %+v", s.Agent)
			}
			for _, want := range []string{"kernel command line: agent.debug_console", "aa.toml: later", "cdh.toml: later"} {
				if !slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.HasPrefix(w, want) }) {
					t.Errorf("no warning of %q in %q", want, s.Warnings)
				}
			}
		})
	}
}

// A document may bring a policy for the host's requests. Doing without one, or
// only learning from it, is a measured decision, and so is each alone.
func TestAgentPolicy(t *testing.T) {
	with := func(name, text string) []byte { return document(map[string]string{name: text}) }
	const rego = "package agent_policy\n"
	s, err := Load(Sources{InitData: with("policy.rego", rego), CommandLine: "vouchsafe.insecure_no_agent_policy=true"})
	if err != nil || strings.TrimSpace(s.Agent.Policy) != strings.TrimSpace(rego) || s.Agent.InsecureLearnPolicy {
		t.Errorf("a policy was ignored: %+v, %v", s, err)
	}
	learn, none := "[vouchsafe]\ninsecure_learn_agent_policy = true", "[vouchsafe]\ninsecure_no_agent_policy = true"
	s, err = Load(Sources{InitData: document(map[string]string{"policy.rego": rego, "cdh.toml": learn})})
	if err != nil || !s.Agent.InsecureLearnPolicy {
		t.Errorf("learning: %+v, %v", s, err)
	}
	for name, files := range map[string]map[string]string{
		"a policy that is empty":      {"policy.rego": " \n"},
		"a policy and its waiver":     {"policy.rego": rego, "cdh.toml": none},
		"learning without any policy": {"cdh.toml": learn},
	} {
		if _, err := Load(Sources{InitData: document(files)}); err == nil || !strings.Contains(err.Error(), "policy") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		src    Sources
		waived bool
	}{
		"nothing said":     {Sources{}, false},
		"in init-data":     {Sources{InitData: with("cdh.toml", "[vouchsafe]\ninsecure_no_agent_policy = true")}, true},
		"not in init-data": {Sources{InitData: with("cdh.toml", "[vouchsafe]\ninsecure_plain_http = true")}, false},
		"command line":     {Sources{CommandLine: "vouchsafe.insecure_no_agent_policy=true"}, true},
		"command line, no": {Sources{CommandLine: "vouchsafe.insecure_no_agent_policy=0"}, false},
	} {
		s, err := Load(c.src)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s.Agent.InsecureNoPolicy != c.waived {
			t.Errorf("%s: waived %v", name, s.Agent.InsecureNoPolicy)
		}
	}
}

const kbcA = "[kbc]\nname='cc_kbc'\nurl='https://a'\n"

// The owner's order is kept, and what stands in is as strict as the first.
func TestStandby(t *testing.T) {
	s, err := Load(Sources{InitData: document(map[string]string{DocumentCDH: kbcA +
		"[[vouchsafe.brokers]]\nurl='https://b:8080/'\n[[vouchsafe.brokers]]\nurl='https://c'\nnamed_only=true"})})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Standby) != 2 || s.Standby[0].URL != "https://b:8080" || s.Standby[0].NamedOnly || s.Standby[1].URL != "https://c" || !s.Standby[1].NamedOnly {
		t.Errorf("%+v", s.Standby)
	}
}

func TestLoadBroker(t *testing.T) {
	aa := func(s string) map[string]string { return map[string]string{"aa.toml": s} }
	cdh := func(s string) map[string]string { return map[string]string{"cdh.toml": s} }
	tests := map[string]struct {
		cmdline string
		files   map[string]string
		url     string
		refused string // part of the error
	}{
		"nothing configured":             {},
		"command line":                   {cmdline: "agent.aa_kbc_params=cc_kbc::https://kbs", url: "https://kbs"},
		"command line, no separator":     {cmdline: "agent.aa_kbc_params=cc_kbc", refused: "want <kbc-name>::<url>"},
		"command line, two separators":   {cmdline: "agent.aa_kbc_params=cc_kbc::a::b", refused: "want <kbc-name>::<url>"},
		"command line, offline":          {cmdline: "agent.aa_kbc_params=offline_fs_kbc::null", refused: "offline_fs_kbc"},
		"command line, plain http":       {cmdline: "agent.aa_kbc_params=cc_kbc::http://kbs", refused: "insecure_plain_http"},
		"command line, plain http loud":  {cmdline: "agent.aa_kbc_params=cc_kbc::http://kbs vouchsafe.insecure_plain_http=true", url: "http://kbs"},
		"aa.toml hides the command line": {cmdline: "agent.aa_kbc_params=cc_kbc::https://kbs", files: aa("")},
		"only aa.toml":                   {files: aa("[token_configs.kbs]\nurl='https://a'"), url: "https://a"},
		"only cdh.toml":                  {files: cdh("[kbc]\nname='cc_kbc'\nurl='https://b'"), url: "https://b"},
		"cdh.toml plain http":            {files: cdh("[kbc]\nurl='http://b'"), refused: "insecure_plain_http"},
		"cdh.toml plain http loud":       {files: cdh("[kbc]\nurl='http://b'\n[vouchsafe]\ninsecure_plain_http=true"), url: "http://b"},
		"different brokers":              {files: map[string]string{"aa.toml": "[token_configs.kbs]\nurl='https://a'", "cdh.toml": "[kbc]\nurl='https://b'"}, refused: "must agree"},
		"offline kbc":                    {files: cdh("[kbc]\nname='offline_fs_kbc'"), refused: "offline_fs_kbc"},
		"ftp":                            {files: cdh("[kbc]\nurl='ftp://b'"), refused: "scheme"},
		"user info":                      {files: cdh("[kbc]\nurl='https://me:pw@b'"), refused: "not of the form"},
		"certificate is none":            {files: cdh("[kbc]\nurl='https://b'\nkbs_cert='hello'"), refused: "certificate"},
		"wrong type":                     {files: cdh("[kbc]\nurl=7"), refused: "cdh.toml"},
		"no TOML":                        {files: aa("= ="), refused: "aa.toml"},
		"bad extra roots":                {files: cdh("[image]\nextra_root_certificates=['x']"), refused: "extra_root_certificates"},
		"bad lookaside":                  {files: cdh("[image]\nsigstore_config='docker: {Q: {lookaside: x}}'"), refused: "sigstore_config"},
		"lookaside of another shape":     {files: cdh("[image]\n[image.sigstore_config]\nelsewhere=1"), refused: "sigstore_config"},
		"bad timeout":                    {cmdline: "agent.image_pull_timeout=soon", refused: "agent.image_pull_timeout"},
		"standby without a first":        {files: map[string]string{DocumentCDH: "[[vouchsafe.brokers]]\nurl='https://b'"}, refused: "there is none"},
		"standby over http":              {files: map[string]string{DocumentCDH: kbcA + "[[vouchsafe.brokers]]\nurl='http://b'"}, refused: "brokers[0]: the broker's URL is http"},
		"standby named twice":            {files: map[string]string{DocumentCDH: kbcA + "[[vouchsafe.brokers]]\nurl='https://a/'"}, refused: "named before"},
		"standby without a URL":          {files: map[string]string{DocumentCDH: kbcA + "[[vouchsafe.brokers]]\nnamed_only=true"}, refused: "no URL"},
		"too many standbys":              {files: map[string]string{DocumentCDH: kbcA + strings.Repeat("[[vouchsafe.brokers]]\nurl='https://b'\n", 8)}, refused: "at most 7"},
		"bad feature set":                {cmdline: "agent.guest_components_rest_api=everything", refused: "no feature set"},
		"bad component":                  {cmdline: "agent.guest_components_procs=all", refused: "no guest component"},
		"bad level":                      {cmdline: "agent.log=loud", refused: "no log level"},
		"long command line":              {cmdline: strings.Repeat("x", maxCommandLine+1), refused: "bytes long"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			src := Sources{CommandLine: tc.cmdline}
			if tc.files != nil {
				src.InitData = document(tc.files)
			}
			s, err := Load(src)
			if tc.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tc.refused) {
					t.Fatalf("got %v, want an error about %q", err, tc.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.Broker.URL != tc.url {
				t.Errorf("broker %q, want %q", s.Broker.URL, tc.url)
			}
		})
	}
}

func TestComponents(t *testing.T) {
	for procs, want := range map[string]Components{
		"": REST,
		"agent.guest_components_procs=api-server-rest":       REST,
		"agent.guest_components_procs=confidential-data-hub": DataHub,
		"agent.guest_components_procs=attestation-agent":     Attestation,
		"agent.guest_components_procs=none":                  NoComponents,
	} {
		if s, err := Load(Sources{CommandLine: procs}); err != nil || s.Agent.Components != want {
			t.Errorf("%q: %v, %v", procs, s, err)
		}
	}
}

type launchField struct {
	data [32]byte
	err  error
}

func (f launchField) BindInitData(_ context.Context, digest []byte) error {
	if f.err != nil {
		return f.err
	}
	return initdata.CompareField(f.data[:], digest)
}

func TestCheckBinding(t *testing.T) {
	doc, err := initdata.Parse(document(nil))
	if err != nil {
		t.Fatal(err)
	}
	other, err := initdata.Parse(append(document(nil), '\n')) // one byte of white space more
	if err != nil {
		t.Fatal(err)
	}
	var bound [32]byte
	copy(bound[:], doc.Digest()) // SHA-384, cut to the field's 32 bytes
	tests := map[string]struct {
		doc      *initdata.Document
		platform Binder
		ok       bool
	}{
		"bound":                  {doc, launchField{data: bound}, true},
		"no init-data, no field": {nil, launchField{}, true},
		"other document":         {other, launchField{data: bound}, false},
		"withheld":               {nil, launchField{data: bound}, false},
		"field is zero":          {doc, launchField{}, false},
		"field unreadable":       {doc, launchField{data: bound, err: errors.New("broken")}, false},
		"unreadable, withheld":   {nil, launchField{err: errors.New("broken")}, false},
		"no platform":            {doc, nil, false},
		"no platform, no doc":    {nil, nil, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			err := CheckBinding(t.Context(), tc.doc, tc.platform)
			if tc.ok {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			f, is := errors.AsType[*fault.Fault](err)
			if !is || f.Code != fault.InitDataMismatch {
				t.Fatalf("got %v, want init_data_mismatch", err)
			}
		})
	}
}

func TestEventLog(t *testing.T) {
	load := func(aa string) (EventLog, error) {
		s, err := Load(Sources{InitData: document(map[string]string{"aa.toml": aa})})
		if err != nil {
			return EventLog{}, err
		}
		return s.EventLog, nil
	}
	for aa, want := range map[string]EventLog{
		"": {}, "[eventlog_config]\nenable_eventlog = true": {Enabled: true},
		"[eventlog_config]\nenable_eventlog = true\ninit_pcr = 14": {Enabled: true, PCR: 14},
		"[eventlog_config]\ninit_pcr = 17":                         {PCR: 17},
	} {
		if got, err := load(aa); err != nil || got != want {
			t.Errorf("%q: %+v, %v", aa, got, err)
		}
	}
	for _, pcr := range []string{"-1", "0", "24", "true"} {
		if _, err := load("[eventlog_config]\ninit_pcr = " + pcr); err == nil {
			t.Errorf("init_pcr = %s is taken", pcr)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("agent.log=info agent.aa_kbc_params=cc_kbc::https://kbs", document(map[string]string{"cdh.toml": "[kbc]\nname='cc_kbc'\nurl='https://b'"}))
	f.Add("", []byte("initdata\x00"))
	f.Fuzz(func(t *testing.T, cmdline string, raw []byte) {
		s, err := Load(Sources{CommandLine: cmdline, InitData: raw})
		if err != nil {
			return
		}
		if strings.HasPrefix(s.Broker.URL, "http://") && !s.Broker.InsecurePlainHTTP {
			t.Fatal("plain http without the loud key")
		}
		if len(raw) > 0 && s.InitData == nil {
			t.Fatal("init-data was given and dropped")
		}
	})
}

// FuzzDocuments reaches the inner documents, which FuzzLoad seldom finds.
func FuzzDocuments(f *testing.F) {
	f.Add("[token_configs.kbs]\nurl='https://a'", "[kbc]\nurl='https://a'\n[image]\nextra_root_certificates=[]\n[[image.registry_config.registry]]\nlocation='q'\ninsecure=true")
	f.Fuzz(func(t *testing.T, aa, cdh string) {
		d, err := parseDocuments(map[string]string{DocumentAA: aa, DocumentCDH: cdh})
		if err != nil {
			return
		}
		b, err := joinBroker(commandLine{}, d)
		if err == nil && strings.HasPrefix(b.URL, "http://") && !b.InsecurePlainHTTP {
			t.Fatal("plain http without the loud key")
		}
		_, _ = joinImage(commandLine{}, d) // must not panic
	})
}

func TestDisks(t *testing.T) {
	with := func(name, text string) []byte { return document(map[string]string{name: text}) }
	for name, c := range map[string]struct {
		src     Sources
		disk    string
		waived  bool
		refused bool
	}{
		"unset":              {Sources{}, "", false, false},
		"command line":       {Sources{CommandLine: "vouchsafe.image_disk=/dev/vdb agent.secure_storage_integrity=true"}, "/dev/vdb", false, false},
		"init-data wins":     {Sources{CommandLine: "vouchsafe.image_disk=/dev/vdb", InitData: with("cdh.toml", "[vouchsafe]\nimage_disk = '/dev/vdc'")}, "/dev/vdc", false, false},
		"without integrity":  {Sources{CommandLine: "agent.secure_storage_integrity=false"}, "", true, false},
		"perhaps":            {Sources{CommandLine: "agent.secure_storage_integrity=perhaps"}, "", false, true},
		"relative":           {Sources{CommandLine: "vouchsafe.image_disk=vdb"}, "", false, true},
		"somewhere else":     {Sources{CommandLine: "vouchsafe.image_disk=/dev/../etc"}, "", false, true},
		"a list":             {Sources{InitData: with("cdh.toml", "[vouchsafe]\nimage_disk = ['/dev/vdc']")}, "", false, true},
		"a key nobody knows": {Sources{InitData: with("cdh.toml", "[vouchsafe]\nimage_disks = '/dev/vdc'")}, "", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Load(c.src)
			if (err != nil) != c.refused {
				t.Fatalf("refused %v, want %v: %v", err != nil, c.refused, err)
			}
			if err == nil && (s.Agent.ImageDisk != c.disk || s.Agent.InsecureNoStorageIntegrity != c.waived) {
				t.Errorf("%+v", s.Agent)
			}
		})
	}
}
