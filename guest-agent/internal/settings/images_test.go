package settings

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

func loadImage(cmdline, cdh string) (Image, []string, error) {
	src := Sources{CommandLine: cmdline}
	if cdh != "" {
		src.InitData = document(map[string]string{"cdh.toml": cdh})
	}
	s, err := Load(src)
	if err != nil {
		return Image{}, nil, err
	}
	return s.Image, s.Warnings, nil
}

func TestImageSettings(t *testing.T) {
	const parameters = "agent.image_policy_file=kbs:///a/b/c agent.image_registry_auth=kbs:///a/auth/1 agent.https_proxy=http://p:1 agent.http_proxy=p:2 agent.no_proxy=10.0.0.0/8"
	proxy := registry.Proxy{HTTPS: "http://p:1", HTTP: "p:2", No: "10.0.0.0/8"}
	tests := map[string]struct {
		cmdline, cdh string
		want         Image
	}{
		"command line": {cmdline: parameters, want: Image{PolicyURI: "kbs:///a/b/c", AuthURI: "kbs:///a/auth/1", Proxy: proxy}},
		"command line beside another table": {
			cmdline: "agent.image_registry_auth=/auth", cdh: "[kbc]\nurl='https://b'", want: Image{AuthURI: "/auth"},
		},
		"a table hides the command line": {cmdline: parameters, cdh: "[image]\nwork_dir='/scratch'", want: Image{WorkDir: "/scratch"}},
		"everything by location": {
			cdh: `[image]
registry_configuration_uri='kbs:///a/registries/1'
authenticated_registry_credentials_uri='file:///auth.json'
max_concurrent_layer_downloads_per_image=7
[image.image_pull_proxy]
https_proxy='http://p:1'
http_proxy='p:2'
no_proxy='10.0.0.0/8'
[[vouchsafe.registry_tls]]
host='reg.test:5000'
client_certificate_uri='kbs:///a/client/1'
[vouchsafe]
image_keys=['kbs:///a/image-key/1', '/key.pem']`,
			want: Image{
				KeyURIs:       []string{"kbs:///a/image-key/1", "/key.pem"},
				RegistriesURI: "kbs:///a/registries/1", AuthURI: "file:///auth.json", ParallelLayers: 7, Proxy: proxy,
				RegistryTLS: []RegistryTLS{{Host: "reg.test:5000", CertificateURI: "kbs:///a/client/1"}},
			},
		},
		"the older form of proxies": {
			cdh: "[image]\nimage_pull_proxy='http://p:1'\nskip_proxy_ips='10.0.0.0/8'", want: Image{Proxy: registry.Proxy{HTTPS: "http://p:1", HTTP: "http://p:1", No: "10.0.0.0/8"}},
		},
		"a store in memory": {
			cdh: "[vouchsafe]\nimage_store='memory'\nimage_memory_limit=512", want: Image{ImageStore: ImageStore{InMemory: true, MemoryLimit: 512 << 20}},
		},
		"layers that are checked on the disk": {
			cdh: "[vouchsafe]\nimage_store='disk'\nimage_verity=true", want: Image{ImageStore: ImageStore{Verity: true}},
		},
		"inline registries win": {
			cdh:  "[image]\nregistry_configuration_uri='/x'\n[[image.registry_config.registry]]\nprefix='q.io'\nblocked=true",
			want: Image{Registries: &registry.Registries{Rules: []registry.Rule{{Prefix: "q.io", Blocked: true}}}},
		},
		"mirrors": {
			cdh: "[image.registry_config]\nunqualified-search-registries=['docker.io']\n[[image.registry_config.registry]]\nprefix='q.io/team'\nlocation='r.io'\n[[image.registry_config.registry.mirror]]\nlocation='m.io'\ninsecure=true",
			want: Image{Registries: &registry.Registries{Unqualified: []string{"docker.io"}, Rules: []registry.Rule{
				{Prefix: "q.io/team", Location: "r.io", Mirrors: []registry.Mirror{{Location: "m.io", Insecure: true}}},
			}}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, warnings, err := loadImage(tc.cmdline, tc.cdh)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
			if len(warnings) > 0 {
				t.Errorf("warnings: %q", warnings)
			}
		})
	}
}

func TestImageSettingsRefused(t *testing.T) {
	const rule = "[[image.registry_config.registry]]\n"
	for name, tc := range map[string]struct{ cmdline, cdh, refused string }{
		"prefix is no registry":         {cdh: rule + "prefix='p'\nlocation='q.io'", refused: "prefix"},
		"a search through registries":   {cdh: "[image.registry_config]\nunqualified-search-registries=['docker.io','quay.io']", refused: "only docker.io"},
		"an unknown key of a rule":      {cdh: rule + "prefix='q.io'\nforbidden=true", refused: "no such key"},
		"an unknown key of proxies":     {cdh: "[image.image_pull_proxy]\nall_proxy='x'", refused: "no such key"},
		"an unknown key of ours":        {cdh: "[vouchsafe]\nregistry_tsl='x'", refused: "no such key"},
		"registries at a strange place": {cdh: "[image]\nregistry_configuration_uri='https://x'", refused: "want kbs://"},
		"credentials at a relative one": {cdh: "[image]\nauthenticated_registry_credentials_uri='auth.json'", refused: "want kbs://"},
		"the same by parameter":         {cmdline: "agent.image_registry_auth=ftp://x", refused: "want kbs://"},
		"a proxy that is none":          {cmdline: "agent.https_proxy=ftp://user:hunter2@x", refused: "no URL of a proxy"},
		"too many layers":               {cdh: "[image]\nmax_concurrent_layer_downloads_per_image=65", refused: "at most 64"},
		"negative layers":               {cdh: "[image]\nmax_concurrent_layer_downloads_per_image=-1", refused: "at most 64"},
		"work dir":                      {cdh: "[image]\nwork_dir='here'", refused: "not absolute"},
		"roots of one registry":         {cdh: "[[vouchsafe.registry_tls]]\nhost='r.io'\nroot_certificates='x'", refused: "registry_tls[0]: no certificate"},
		"an image key without place":    {cdh: "[vouchsafe]\nimage_keys=['']", refused: "none that is empty"},
		"too many image keys":           {cdh: "[vouchsafe]\nimage_keys=[" + strings.Repeat("'/k',", 17) + "]", refused: "at most 16"},
		"an image key elsewhere":        {cdh: "[vouchsafe]\nimage_keys=['https://x/y']", refused: "want kbs://"},
		"a store that there is not":     {cdh: "[vouchsafe]\nimage_store='tape'", refused: "want disk or memory"},
		"a limit of the disk":           {cdh: "[vouchsafe]\nimage_memory_limit=1", refused: "limits nothing"},
		"a limit below nothing":         {cdh: "[vouchsafe]\nimage_store='memory'\nimage_memory_limit=-1", refused: "at most"},
		"a limit beyond numbers":        {cdh: "[vouchsafe]\nimage_store='memory'\nimage_memory_limit=9223372036854775807", refused: "at most"},
		"a misspelt store":              {cdh: "[vouchsafe]\nimage_stroe='memory'", refused: "no such key"},
		"no host":                       {cdh: "[[vouchsafe.registry_tls]]\nclient_certificate_uri='/x'", refused: "host is needed"},
		"a host twice":                  {cdh: "[[vouchsafe.registry_tls]]\nhost='r.io'\n[[vouchsafe.registry_tls]]\nhost='r.io'", refused: "only once"},
		"no host at all":                {cdh: "[[vouchsafe.registry_tls]]\nhost='r.io/x'", refused: "no host"},
		"certificate at a strange one":  {cdh: "[[vouchsafe.registry_tls]]\nhost='r.io'\nclient_certificate_uri='x'", refused: "want kbs://"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := loadImage(tc.cmdline, tc.cdh)
			if err == nil || !strings.Contains(err.Error(), tc.refused) {
				t.Fatalf("got %v, want an error about %q", err, tc.refused)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows a password: %v", err)
			}
		})
	}
}

func TestRegistryRoots(t *testing.T) {
	pem := certificate(t)
	i, _, err := loadImage("", "[[vouchsafe.registry_tls]]\nhost='r.io'\nroot_certificates=\"\"\""+pem+"\"\"\"")
	if err != nil {
		t.Fatal(err)
	}
	pool, err := i.RegistryTLS[0].RootCAs()
	if err != nil || pool == nil || !slices.Equal(i.RegistryTLS[0].Roots, []byte(pem+"\n")) {
		t.Errorf("%v, %v, %q", pool, err, i.RegistryTLS[0].Roots)
	}
}
