package config

import (
	"path/filepath"
	"strings"
	"testing"
)

// Configurations as the field's operators have them (kbs-protocol 13.1): what
// works unchanged, and what is refused with a reason.
func TestConfigurationsOfTheField(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string // complaints; none means that it works
	}{
		"listening":       {"[http_server]\nsockets = ['0.0.0.0:8080']\ninsecure_http = true\npayload_request_size = 10\nworker_count = 4\n", nil},
		"own certificate": {"[http_server]\nprivate_key = 'k.pem'\ncertificate = 'c.pem'\ntls_profile = 'modern'\n", nil},
		"custom tls": {"[http_server]\ntls_profile = 'custom'\ntls_min_version = '1.2'\ntls_max_version = '1.3'\n" +
			"tls_ciphers = 'ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305'\ntls_groups = 'X25519MLKEM768:X25519:secp256r1:secp384r1:?X448MLKEM1024'\n", nil},
		"old tls":         {"[http_server]\ntls_profile = 'old'\n", []string{"http_server.tls_profile: old is TLS 1.0"}},
		"no such cipher":  {"[http_server]\ntls_ciphers = 'AES128-SHA'\n", []string{`http_server.tls_ciphers: "AES128-SHA" is not offered`}},
		"no such group":   {"[http_server]\ntls_groups = 'X448'\n", []string{`http_server.tls_groups: "X448" is not offered`}},
		"no group at all": {"[http_server]\ntls_groups = '?X448'\n", []string{"nothing is left"}},
		"tls upside down": {"[http_server]\ntls_min_version = '1.3'\ntls_max_version = '1.2'\n", []string{"is above tls_max_version"}},
		"built-in verifier": {"[attestation_service]\ntype = 'coco_as_builtin'\ntimeout = 10\n[attestation_service.attestation_token_broker]\nduration_min = 6\n" +
			"[attestation_service.rvps_config]\ntype = 'BuiltIn'\n", nil},
		"verifier elsewhere":               {"[attestation_service]\ntype = 'intel_ta'\nbase_url = 'https://x'\n", []string{"line 3: attestation_service.base_url: unknown key: Intel Trust Authority"}},
		"another's verifier":               {"[attestation_service]\ntype = 'coco_as_grpc'\nas_addr = 'http://127.0.0.1:50004'\npool_size = 200\n", nil},
		"another's verifier, in the clear": {"[attestation_service]\ntype = 'CoCoASGrpc'\nas_addr = 'http://as:50004'\n", []string{"as_addr: must be https beyond loopback"}},
		"another's verifier, nowhere":      {"[attestation_service]\nas_addr = 'as:50004'\n", []string{"as_addr: \"as:50004\" is not"}},
		"names without authority":          {"[rvps.grpc]\nadmin_names = ['x']\n", []string{"rvps.grpc.admin_names: needs client_ca"}},
		"passports": {"[attestation_token]\ntrusted_certs_paths = ['ca.pem']\ntrusted_jwk_sets = ['https://portal.trustauthority.intel.com', 'file:///etc/jwks.json']\n" +
			"extra_teekey_paths = ['/tee-pubkey']\ninsecure_header_jwk = true\n", nil},
		"signer":          {"[attestation_service.attestation_token_broker]\nverbose_token = true\nsigner = {key_path = 'k.pem', cert_path = 'c.pem', cert_url = 'https://x/c.pem'}\n", nil},
		"half a signer":   {"[attestation_service.attestation_token_broker.signer]\ncert_path = 'c.pem'\n", []string{"signer.key_path: must be given"}},
		"resources":       {"[[plugins]]\nname = 'resource'\n", nil},
		"resources, kv":   {"[[plugins]]\nname = 'resource'\nstorage_backend_type = 'kvstorage'\n", nil},
		"another plugin":  {"[[plugins]]\nname = 'resource'\n[[plugins]]\nname = 'sample'\n", []string{`plugins[1].name: there is no plugin "sample"`}},
		"nebula":          {"[[plugins]]\nname = 'nebula-ca'\n", nil},
		"nebula, limited": {"[[plugins]]\nname = 'nebula-ca'\n[plugins.ca_config]\nname = 'lab'\ncurve = 'P256'\nduration = '48h'\ngroups = 'ssh, web'\nips = '10.9.0.0/16'\nsubnets = '192.168.0.0/16,172.16.0.0/12'\n", nil},
		"nebula, as a program": {"[[plugins]]\nname = 'nebula-ca'\nwork_dir = '/w'\nnebula_cert_bin_path = '/n'\n[plugins.ca_config]\nargon_memory = 1\nout_qr = 'x.png'\n", []string{
			"line 3: plugins[0].work_dir: unknown key: the authority's key is in no file", "line 4: plugins[0].nebula_cert_bin_path: unknown key: certificates are made by the broker itself",
			"line 6: plugins[0].ca_config.argon_memory: unknown key: no passphrase", "line 7: plugins[0].ca_config.out_qr: unknown key: nothing draws",
		}},
		"nebula, as documented": {"[[plugins]]\nname = 'nebula-ca'\n[plugins.self_signed_ca]\nname = 'x'\n", []string{"plugins[0].self_signed_ca: unknown key: the field's documents"}},
		"nebula, all wrong": {"[[plugins]]\nname = 'nebula-ca'\nca_config = {name = ' x', curve = 'P384', duration = '-1h', groups = \"a\\u0007\", ips = 'fd00::/8', subnets = '10.0.0.1'}\n", []string{
			"plugins[0].ca_config.name: must be 1 to 253", `plugins[0].ca_config.curve: "P384" is neither`, `plugins[0].ca_config.duration: "-1h"`,
			"plugins[0].ca_config.groups: '\\a' is not printable", `plugins[0].ca_config.ips: "fd00::/8" is no IPv4`, `plugins[0].ca_config.subnets: "10.0.0.1" is no IPv4`,
		}},
		"nebula, another's key": {"[[plugins]]\nname = 'resource'\nca_config = {name = 'x'}\n", []string{"plugins[0]: these keys are another plugin's"}},
		"provisioner":           {"[[plugins]]\nname = 'provisioner'\nkey_length = 64\n", nil},
		"provisioner, weak":     {"[[plugins]]\nname = 'provisioner'\nkey_length = 8\n", []string{"plugins[0].key_length: "}},
		"token, as the field has it": {"[[plugins]]\nname = 'pkcs11'\nmodule = '/m.so'\npin = '1'\n", []string{
			"line 3: plugins[0].module: unknown key: belongs into the configuration of kbs-pkcs11", "line 4: plugins[0].pin: unknown key: the PIN is in a file of its own",
		}},
		"token":             {"[[plugins]]\nname = 'pkcs11'\nsocket = 's'\n", nil},
		"token, nowhere":    {"[[plugins]]\nname = 'pkcs11'\n", []string{"plugins[0].socket: the socket"}},
		"token, and more":   {"[[plugins]]\nname = 'resource'\nsocket = 's'\n", []string{"another plugin's"}},
		"resources, token":  {"[[resource_backends]]\nname = 'hsm'\nprefix = 'hsm/'\ntype = 'pkcs11'\nsocket = 's'\n", nil},
		"no token at all":   {"[[resource_backends]]\nname = 'hsm'\nprefix = 'hsm/'\ntype = 'pkcs11'\n", []string{"resource_backends[0].socket: the socket"}},
		"token in a vault":  {"[[resource_backends]]\nname = 'hsm'\nprefix = 'hsm/'\ntype = 'pkcs11'\nsocket = 's'\nmount = 'secret'\n", []string{"do not belong to type"}},
		"resources, aliyun": {"[[plugins]]\nname = 'resource'\nstorage_backend_type = 'aliyun'\n", []string{`there is no back end "aliyun"`}},
		"storage":           {"[storage_backend]\nstorage_type = 'LocalFs'\n", nil},
		"storage, memory":   {"[storage_backend]\nstorage_type = 'Memory'\n", []string{"storage_backend.storage_type: Memory would lose the audit log"}},
		"storage, redis":    {"[storage_backend.backends.redis]\nurl = 'redis://x'\n", []string{"SQLite or PostgreSQL"}},
		"storage, postgres": {"[storage_backend]\nstorage_type = 'Postgres'\n[storage_backend.backends.postgres]\nhost = 'db'\nport = 5433\ndb = 'kbs'\nusername = 'kbs'\npassword = 'p'\n", nil},
		"sessions":          {"session_storage_type = 'Memory'\n", []string{"line 1: session_storage_type: unknown key: the broker keeps"}},
		"open to everyone":  {"[admin]\ninsecure_api = true\n", []string{"line 2: admin.insecure_api: unknown key: the admin API cannot be opened"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(written(t, map[string]string{"kbs-config.toml": c.text}), "kbs-config.toml")
			cfg, err := Load(path, env(nil))
			if (err == nil) != (c.want == nil) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
			if name == "built-in verifier" && (cfg.AttestationService.AttestationTokenBroker.DurationMin != 6 || cfg.AttestationService.Timeout != 10) {
				t.Errorf("%+v", cfg)
			}
		})
	}
}

func TestTLSParameters(t *testing.T) {
	h := defaultHTTPServer()
	if p := h.TLS(); p.Min != 0x0303 || p.Max != 0x0304 || p.Suites != nil || p.Groups != nil {
		t.Errorf("intermediate: %+v", p)
	}
	h.TLSProfile = "modern"
	if p := h.TLS(); p.Min != 0x0304 {
		t.Errorf("modern: %+v", p)
	}
	h.TLSProfile, h.TLSGroups, h.TLSMaxVersion, h.TLSCiphers = "custom", "X25519MLKEM768:prime256v1", "1.2", "ECDHE-RSA-AES128-GCM-SHA256"
	if p := h.TLS(); len(p.Groups) != 2 || p.Groups[0] != 4588 || p.Max != 0x0303 || len(p.Suites) != 1 {
		t.Errorf("custom: %+v", p)
	}
}
