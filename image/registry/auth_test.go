package registry

import (
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func TestCredentialLookup(t *testing.T) {
	c, err := parseAuth(secret.Copy([]byte(`{"auths":{
		"ghcr.io/org/app":{"auth":"YXBwOng="},
		"ghcr.io/org":{"auth":"b3JnOngK"},
		"ghcr.io":{"auth":"aG9zdDp4"},
		"https://index.docker.io/v1/":{"auth":"aHViOng="},
		"quay.io":{"username":"quay","password":"x"}}}`)), nil)
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"ghcr.io/org/app": "app", "ghcr.io/org/app/deep": "app", "ghcr.io/org/other": "org", "ghcr.io/organic": "host",
		"alpine": "hub", "quay.io/a": "quay", "evil.io/ghcr.io/org": "", "ghcr.io:5000/org": "",
	} {
		r, err := ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.lookup(r).Authorization()
		if err != nil || got.Username != want {
			t.Errorf("%s gets the credential of %q, want %q (%v)", ref, got.Username, want, err)
		}
		if want != "" && got.Password != "x" {
			t.Errorf("%s: the password is not as given", ref)
		}
	}
}

func FuzzParseAuth(f *testing.F) {
	f.Add([]byte(`{"auths":{"ghcr.io":{"auth":"YTpi"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseAuth(secret.Copy(b), nil)
		if err == nil {
			c.lookup(Reference{Host: "ghcr.io", Path: "a/b"})
		}
	})
}
