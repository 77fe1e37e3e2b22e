package outline

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestIs(t *testing.T) {
	for _, text := range []string{
		`{"default":[{"type":"reject"}]}`,
		`{"default":[{"type":"insecureAcceptAnything"}],"transports":{}}`,
		`{"default":[{"type":"reject"}],"transports":{"docker":{"":[{"type":"sigstoreSigned","keyPath":"kbs:///a/b/c"},{"type":"encrypted"}],"reg.example/app":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"k"}]}}}`,
		`{"default":[{"type":"attested","predicateType":"x"},{"type":"notationSigned"}]}`,
		`{"default":[{"type":"sigstoreSigned","keyPath":"k","signedIdentity":{"type":"remapIdentity","prefix":"a","signedPrefix":"b"},"threshold":1,"annotations":{"env":"prod"},"atLeast":{"version":"1.4"}}]}`,
		`{"default":[{"type":"sigstoreSigned","fulcio":{"caData":"AAAA","oidcIssuer":"https://i","subjectEmail":"a@b"},"rekorPublicKeyDatas":["AAAA"]}]}`,
	} {
		if !Is([]byte(text)) {
			t.Errorf("no policy: %s", text)
		}
	}
}

// Nothing that anybody keeps at a broker as a secret has that shape.
func TestIsNot(t *testing.T) {
	many := strings.Repeat(`{"type":"reject"},`, maxRules) + `{"type":"reject"}`
	for name, text := range map[string]string{
		"nothing": "", "a password": "hunter2", "a key": "\x00\x01\x02", "a number": "7", "null": "null", "a list": `[{"type":"reject"}]`,
		"an object":            `{}`,
		"a web key":            `{"kty":"oct","k":"AAAA"}`,
		"registry credentials": `{"auths":{"reg.example":{"auth":"AAAA"}}}`,
		"a secret beside it":   `{"default":[{"type":"reject"}],"password":"x"}`,
		"no default":           `{"transports":{"docker":{"":[{"type":"reject"}]}}}`,
		"an empty default":     `{"default":[]}`,
		"a secret in a rule":   `{"default":[{"type":"reject","password":"hunter2"}]}`,
		"one in another":       `{"default":[{"type":"reject"},{"type":"signedBy","keyPath":{"password":"hunter2"}}]}`,
		"in a list":            `{"default":[{"type":"signedBy","keyPaths":[{"password":"hunter2"}]}]}`,
		"in an identity":       `{"default":[{"type":"signedBy","signedIdentity":{"type":"matchExact","password":"hunter2"}}]}`,
		"in a condition":       `{"default":[{"type":"attested","where":[{"at":"/a","is":"b","password":"hunter2"}]}]}`,
		"in annotations":       `{"default":[{"type":"sigstoreSigned","annotations":{"a":{"password":"hunter2"}}}]}`,
		"in a transport":       `{"default":[{"type":"reject"}],"transports":{"docker":{"":[{"type":"reject","token":"hunter2"}]}}}`,
		"in other letters":     `{"default":[{"type":"reject","KEYPATH":"hunter2"}]}`,
		"another default":      `{"default":"hunter2"}`,
		"no type":              `{"default":[{"password":"x"}]}`,
		"another type":         `{"default":[{"type":"password"}]}`,
		"half a policy":        `{"default":[{"type":"reject"}],"transports":{"docker":{"":[{"password":"x"}]}}}`,
		"another transport":    `{"default":[{"type":"reject"}],"transports":{"docker":"hunter2"}}`,
		"other transports":     `{"default":[{"type":"reject"}],"transports":"hunter2"}`,
		"null transports":      `{"default":[{"type":"reject"}],"transports":null}`,
		"a member twice":       `{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}`,
		"something behind":     `{"default":[{"type":"reject"}]} hunter2`,
		"too many rules":       `{"default":[` + many + `]}`,
		"too large":            `{"default":[{"type":"reject","x":"` + strings.Repeat("x", MaxSize) + `"}]}`,
	} {
		if Is([]byte(text)) {
			t.Errorf("%s is taken for a policy", name)
		}
	}
}

// Every policy that the documentation shows is one.
func TestDocumentedPolicies(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "image-policy.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for i, part := range strings.Split(string(raw), "```") {
		text, is := strings.CutPrefix(part, "json\n")
		if i%2 == 0 || !is || !strings.Contains(text, `"default"`) || !json.Valid([]byte(text)) {
			continue
		}
		if seen++; !Is([]byte(text)) {
			t.Errorf("no policy: %s", text)
		}
	}
	if seen == 0 {
		t.Error("there is none in the documentation any more")
	}
}

func FuzzIs(f *testing.F) {
	f.Add([]byte(`{"default":[{"type":"reject"}],"transports":{"docker":{"":[{"type":"encrypted"}]}}}`))
	f.Add([]byte(`{"default":[{"type":"reject"}],"transports":[]}`))
	f.Add([]byte(strings.Repeat("[", 255)))
	f.Add([]byte(`{"default":[{"type":"attested","where":[{"at":"/a","is":7}],"annotations":{"` + strings.Repeat("a", 255) + `":""},"identities":[{"issuer":""}]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !Is(raw) {
			return
		}
		var doc map[string]any
		if err := json.Unmarshal(raw, &doc); err != nil || len(doc) > 2 {
			t.Fatalf("%q is no policy: %v", raw, err)
		}
	})
}
