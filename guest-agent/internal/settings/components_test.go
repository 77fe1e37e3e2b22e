package settings

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

// Every parameter of the field's two documents is known (guest-protocol 3.2,
// 8.2): nothing of them is ignored.
func TestTheFieldsDocuments(t *testing.T) {
	s, err := Load(Sources{InitData: document(map[string]string{
		DocumentAA: `
[token_configs.kbs]
url = "https://a"
cert = ""
tee_key_algorithm = "ECDH-ES+A256KW-P521"
[token_configs.coco_as]
url = "https://as.example:8000/"
[eventlog_config]
init_pcr = 17
enable_eventlog = false
[log]
level = "warn"`,
		DocumentCDH: `
socket = "unix:///run/elsewhere/cdh.sock"
skip_sealed_secret_verification = false
[aa]
aa_socket = "127.0.0.1:50002"
[kbc]
name = "cc_kbc"
url = "https://a"
kbs_cert = ""
[[credentials]]
resource_uri = "kbs:///default/aws/credential"
path = "/run/confidential-containers/cdh/kbs/kms-credential/aws/credential.json"
[log]
level = "DEBUG"
[image]
max_concurrent_layer_downloads_per_image = 3`,
	})})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Warnings) != 0 {
		t.Errorf("ignored: %q", s.Warnings)
	}
	if s.Broker.KeyAlgorithm != "ECDH-ES+A256KW-P521" || s.AttestationService.URL != "https://as.example:8000" || s.Agent.LogLevel != slog.LevelDebug ||
		s.AttestationSocket != "127.0.0.1:50002" || s.DataHubSocket != "unix:///run/elsewhere/cdh.sock" || len(s.Credentials) != 1 ||
		s.Credentials[0].ResourceURI != "kbs:///default/aws/credential" || s.InsecureTokenKeyPairs {
		t.Errorf("%+v", s)
	}
}

func TestComponentsRefuse(t *testing.T) {
	const inside = "path='" + CredentialDir + "/x'\n"
	for name, c := range map[string]struct{ aa, cdh, cmdline, refused string }{
		"a key nobody has":            {aa: "[token_configs.kbs]\nurl='https://a'\ntee_key_algorithm='RSA1_5'", refused: "tee_key_algorithm"},
		"a service over http":         {aa: "[token_configs.coco_as]\nurl='http://as'", refused: "coco_as.url is http"},
		"a service that is no URL":    {aa: "[token_configs.coco_as]\nurl='as'", refused: "coco_as.url"},
		"a loud log":                  {aa: "[log]\nlevel='loud'", refused: "no log level"},
		"a service for the world":     {cdh: "socket='0.0.0.0:50000'", refused: "loopback"},
		"a service of another host":   {cdh: "[aa]\naa_socket='10.0.0.1:50002'", refused: "loopback"},
		"a name":                      {cdh: "socket='localhost:50000'", refused: "loopback"},
		"no port":                     {cdh: "socket='127.0.0.1:0'", refused: "loopback"},
		"a relative socket":           {cdh: "socket='unix://cdh.sock'", refused: "clean absolute path"},
		"a credential elsewhere":      {cdh: "[[credentials]]\nresource_uri='kbs:///a/b/c'\npath='/etc/passwd'", refused: "below"},
		"a credential that climbs":    {cdh: "[[credentials]]\nresource_uri='kbs:///a/b/c'\npath='" + CredentialDir + "/../x'", refused: "below"},
		"a credential that is a URL":  {cdh: "[[credentials]]\nresource_uri='https://a/b'\n" + inside, refused: "kbs://"},
		"a credential of the host's":  {cmdline: "cdh.kbs_resources=kbs:///a/b/c::/etc/shadow", refused: "below"},
		"half a credential":           {cmdline: "cdh.kbs_resources=kbs:///a/b/c", refused: "want <uri>::<path>"},
		"credentials without an end":  {cdh: strings.Repeat("[[credentials]]\nresource_uri='kbs:///a/b/c'\n"+inside, maxCredentials+1), refused: "at most"},
		"rounds without a pause":      {cdh: "[vouchsafe]\nlease_interval=1", refused: "lease_interval"},
		"rounds once a month":         {cdh: "[vouchsafe]\nlease_interval=2592000", refused: "lease_interval"},
		"a grace of nothing":          {cdh: "[vouchsafe]\nlease_grace=-1", refused: "lease_grace"},
		"an end of no kind":           {cdh: "[vouchsafe]\non_lease_end='ignore'", refused: "on_lease_end"},
		"an end that never comes":     {cdh: "[vouchsafe]\nlease_interval=0\non_lease_end='stop'", refused: "no lease ends"},
		"a waiver that is misspelled": {cdh: "[vouchsafe]\ninsecure_token_keypair=true", refused: "no such key"},
	} {
		t.Run(name, func(t *testing.T) {
			src := Sources{CommandLine: c.cmdline}
			if c.aa+c.cdh != "" {
				src.InitData = document(map[string]string{DocumentAA: c.aa, DocumentCDH: c.cdh})
			}
			if _, err := Load(src); err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%v, want something about %q", err, c.refused)
			}
		})
	}
}

// What the measured command line says of the log wins over the documents, and
// its credentials come after theirs.
func TestCommandLineBesideDocuments(t *testing.T) {
	s, err := Load(Sources{
		CommandLine: "agent.log=error cdh.kbs_resources=kbs:///a/b/c::" + CredentialDir + "/one,kbs:///a/b/d::" + CredentialDir + "/two/three",
		InitData:    document(map[string]string{DocumentCDH: "[log]\nlevel='debug'\n[vouchsafe]\ninsecure_token_keypairs=true"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Agent.LogLevel != slog.LevelError || len(s.Credentials) != 2 || s.Credentials[1].Path != CredentialDir+"/two/three" || !s.InsecureTokenKeyPairs {
		t.Errorf("%+v", s)
	}
}

func TestLeases(t *testing.T) {
	for text, want := range map[string]Leases{
		"": {Interval: 5 * time.Minute}, "lease_interval=0": {}, "lease_interval=60\nlease_grace=3600\non_lease_end='stop'": {time.Minute, time.Hour, "stop"},
	} {
		s, err := Load(Sources{InitData: document(map[string]string{DocumentCDH: "[vouchsafe]\n" + text})})
		if err != nil || s.Leases != want {
			t.Errorf("%q: %+v, %v", text, s.Leases, err)
		}
	}
	if s, err := Load(Sources{}); err != nil || s.Leases.Interval != 5*time.Minute {
		t.Errorf("without a document: %+v, %v", s, err)
	}
}
