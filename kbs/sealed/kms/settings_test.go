package kms_test

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed/kms"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed/kms/kmstest"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Settings that are wrong send nobody anywhere: neither the broker nor a service
// is asked.
func TestWrongSettings(t *testing.T) {
	for name, c := range map[string]struct{ provider, settings string }{
		"a word nobody knows":  {"aws", `{"region":"eu-central-1","credential":"kbs:///a/b/c","regoin":"x"}`},
		"no region":            {"aws", `{"credential":"kbs:///a/b/c"}`},
		"a host for a region":  {"aws", `{"region":"evil.example/","credential":"kbs:///a/b/c"}`},
		"no credential":        {"aws", `{"region":"eu-central-1"}`},
		"plain HTTP":           {"aws", `{"region":"eu-central-1","credential":"kbs:///a/b/c","endpoint_url":"http://127.0.0.1"}`},
		"a path":               {"aws", `{"region":"eu-central-1","credential":"kbs:///a/b/c","endpoint_url":"https://127.0.0.1/x"}`},
		"a user":               {"aws", `{"region":"eu-central-1","credential":"kbs:///a/b/c","endpoint_url":"https://a:b@127.0.0.1"}`},
		"no certificate":       {"aws", `{"region":"eu-central-1","credential":"kbs:///a/b/c","root_certificates":"x"}`},
		"a number":             {"aws", `{"region":1,"credential":"kbs:///a/b/c"}`},
		"two of one":           {"aws", `{"region":"eu-central-1","Region":"eu-west-1","credential":"kbs:///a/b/c"}`},
		"google, none":         {"gcp", `{}`},
		"azure, no vault":      {"azure", `{"credential":"kbs:///a/b/c"}`},
		"azure, its authority": {"azure", `{"credential":"kbs:///a/b/c","endpoint_url":"https://v.vault.azure.net","authority_url":"http://login"}`},
		"vault, no address":    {"vault", `{"credential":"kbs:///a/b/c"}`},
		"vault, another login": {"vault", `{"credential":"kbs:///a/b/c","endpoint_url":"https://v","auth":"kubernetes"}`},
		"vault, no role":       {"vault", `{"credential":"kbs:///a/b/c","endpoint_url":"https://v","auth":"approle"}`},
		"vault, a mount":       {"vault", `{"credential":"kbs:///a/b/c","endpoint_url":"https://v","mount":"../sys"}`},
		"aliyun, no type":      {"aliyun", `{"region_id":"cn-shanghai","token_path":"/run/x"}`},
		"aliyun, a file":       {"aliyun", `{"client_type":"sts_token","region_id":"cn-shanghai","token_path":"/etc/passwd"}`},
		"aliyun, no key":       {"aliyun", `{"client_type":"client_key","kms_instance_id":"kst-x"}`},
		"aliyun, a path":       {"aliyun", `{"client_type":"client_key","kms_instance_id":"../x","client_key_id":"y"}`},
		"aliyun, no files":     {"aliyun", `{"client_type":"client_key","kms_instance_id":"x","client_key_id":"y"}`},
	} {
		t.Run(name, func(t *testing.T) {
			var settings map[string]any
			if err := json.Unmarshal([]byte(c.settings), &settings); err != nil {
				t.Fatal(err)
			}
			_, err := asksNobody(t).Open(t.Context(), &sealed.Payload{Type: sealed.Vault, Provider: c.provider, Name: "x", Settings: settings})
			want(t, err, fault.SealedInvalid)
		})
	}
}

func asksNobody(t *testing.T) *kms.Opener {
	return kms.New(kms.Config{Fetch: func(_ context.Context, uri string) (secret.Bytes, error) {
		t.Errorf("the broker was asked for %s", uri)
		return secret.Bytes{}, nil
	}})
}

// What the host's metadata service says is no credential, and other vendors are
// none of ours.
func TestUnsupported(t *testing.T) {
	for _, p := range []*sealed.Payload{
		{Provider: "aliyun", Settings: map[string]any{"client_type": "ecs_ram_role"}},
		{Provider: "ehsm", Settings: map[string]any{}},
		{Provider: ""},
	} {
		_, err := asksNobody(t).Open(t.Context(), p)
		want(t, err, fault.Unsupported)
	}
	if kms.Known("ehsm") || kms.Known("kbs") || !kms.Known("AWS") {
		t.Error("what is known")
	}
}

// Secrets of the field name credentials by path, or not at all; what is used is
// the resource that is configured for the path.
func TestFieldCredentials(t *testing.T) {
	for name, settings := range map[string]map[string]any{
		"aws":    {},
		"aliyun": {"token_path": "/run/confidential-containers/cdh/kbs/aliyun/sts"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, vendors[name](t))
			delete(w.Settings, "credential")
			maps.Copy(w.Settings, settings)
			if v, err := w.value("app"); err != nil || v != kmstest.Value {
				t.Fatalf("%q, %v: %s", v, err, cause(err))
			}
		})
	}
}

func TestWrongNames(t *testing.T) {
	for provider, names := range map[string][]string{
		"gcp":   {"app", "projects/p/secrets/../x", "projects/p/secrets/app:destroy", "projects/p/secrets/app/versions/1/x"},
		"azure": {"", "../keys", "a/b/c", "a?x=y", strings.Repeat("a", 255)},
		"vault": {"", "/", "a//b", "../sys/seal", "a/.."},
	} {
		w := newWorld(t, vendors[provider](t))
		for _, name := range names {
			_, err := w.open(&sealed.Payload{Type: sealed.Vault, Provider: provider, Name: name, Settings: w.Settings})
			want(t, err, fault.SealedInvalid)
			e, key, err := sealed.NewEnvelopment(secret.Copy([]byte("x")))
			if err != nil {
				t.Fatal(err)
			}
			key.Destroy()
			e.SetKey(name, []byte("x"))
			_, err = w.open(&sealed.Payload{Type: sealed.Envelope, Provider: provider, Envelopment: e, Settings: w.Settings})
			want(t, err, fault.SealedInvalid)
		}
		if w.Calls() != 0 {
			t.Errorf("%s was asked %d times", provider, w.Calls())
		}
	}
}

// Annotations reach the service, and one that nobody knows is refused.
func TestAnnotations(t *testing.T) {
	for name, c := range map[string]struct {
		annotations map[string]any
		value       string
		code        fault.Code
	}{
		"vault":           {map[string]any{"field": "other", "version": "1"}, "another", ""},
		"aws":             {map[string]any{"version_id": "", "version_stage": "OLD"}, kmstest.Value + "OLD", ""},
		"aliyun":          {map[string]any{"version_id": "", "version_stage": "OLD"}, kmstest.Value + "OLD", ""},
		"aliyun instance": {map[string]any{"version_id": "", "version_stage": "OLD"}, kmstest.Value + "OLD", ""},
		"gcp":             {map[string]any{"version": "1"}, "", fault.SealedInvalid},
		"azure":           {map[string]any{"version": "1"}, "", fault.SealedInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, vendors[name](t))
			p := &sealed.Payload{Type: sealed.Vault, Provider: w.Provider, Name: w.Secret("app"), Settings: w.Settings, Annotations: c.annotations}
			v, err := w.open(p)
			if c.code != "" {
				want(t, err, c.code)
				return
			}
			if err != nil || v != c.value {
				t.Fatalf("%q, %v: %s", v, err, cause(err))
			}
			p.Annotations = map[string]any{"edition": "1"}
			_, err = w.open(p)
			want(t, err, fault.SealedInvalid)
		})
	}
	w := newWorld(t, kmstest.AWS(t))
	if v, err := w.open(&sealed.Payload{Type: sealed.Vault, Provider: "aws", Name: "binary", Settings: w.Settings}); err != nil || v != "\x00\x01\x02" {
		t.Errorf("%q, %v: %s", v, err, cause(err))
	}
}
