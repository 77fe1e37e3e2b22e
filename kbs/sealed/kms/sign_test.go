package kms

import (
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/pause"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func request(t *testing.T, method, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// The figures are those of AWS's published test suite for Signature Version 4,
// and of the example in its guide.
func TestAWSVectors(t *testing.T) {
	key := accessKey{id: "AKIDEXAMPLE", secret: secret.Copy([]byte("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))}
	now := time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		method, url, service, content string
		want                          string
	}{
		"get-vanilla":  {"GET", "https://example.amazonaws.com/", "service", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		"post-vanilla": {"POST", "https://example.amazonaws.com/", "service", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
		"the guide's": {"GET", "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", "iam", "application/x-www-form-urlencoded; charset=utf-8",
			"5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"},
	} {
		req := request(t, c.method, c.url)
		if c.content != "" {
			req.Header.Set("Content-Type", c.content)
		}
		signAWS(req, nil, key, "us-east-1", c.service, now)
		if got := req.Header.Get("Authorization"); !strings.HasSuffix(got, "Signature="+c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// The figures are those of the example in Alibaba's description of version 3.
func TestAliyunVector(t *testing.T) {
	key := accessKey{id: "YourAccessKeyId", secret: secret.Copy([]byte("YourAccessKeySecret"))}
	req := request(t, "POST", "https://ecs.cn-shanghai.aliyuncs.com/?ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai")
	req.Header.Set("X-Acs-Action", "RunInstances")
	req.Header.Set("X-Acs-Version", "2014-05-26")
	signAliyun(req, nil, key, "3156853299f313e23d1673dc12e1703d", time.Date(2023, 10, 26, 10, 22, 32, 0, time.UTC))
	const want = "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version," +
		"Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
	if got := req.Header.Get("Authorization"); got != want {
		t.Errorf("got %s", got)
	}
}

// What goes into a header is one word.
func TestAccessKeys(t *testing.T) {
	for name, k := range map[string]accessKey{
		"no id":           {secret: secret.Copy([]byte("x"))},
		"no secret":       {id: "x"},
		"a line":          {id: "x\r\ny", secret: secret.Copy([]byte("x"))},
		"a scope":         {id: "x/y", secret: secret.Copy([]byte("x"))},
		"a line in it":    {id: "x", secret: secret.Copy([]byte("x")), session: secret.Copy([]byte("x\ny"))},
		"not ASCII in it": {id: "x", secret: secret.Copy([]byte("x")), session: secret.Copy([]byte("\xff"))},
	} {
		if k.check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// A service may say what it likes: its answers are judged, read and clipped
// without a panic.
func FuzzAnswers(f *testing.F) {
	f.Add(400, []byte(`{"__type":"a#ThrottlingException"}`))
	f.Add(403, []byte(`{"error":{"status":"PERMISSION_DENIED","code":"x"}}`))
	f.Add(404, []byte(`{"Code":"Forbidden.KeyNotFound"}`))
	f.Add(0, []byte{})
	f.Add(500, append([]byte{0x12, 0xff, 0x01}, make([]byte, 255)...))
	f.Add(400, []byte{0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		for _, j := range []judge{judgeAWS, judgeGCP, judgeAzure, judgeOAuth, judgeAliyun, judgeInstance} {
			if code, said := j(status, body); len(clip(said)) > maxMessage {
				t.Errorf("%s: %d bytes said", code, len(said))
			}
		}
		fields, err := parseFields(body)
		if err == nil {
			for _, value := range fields {
				if len(value) > len(body) {
					t.Error("a field is longer than its message")
				}
			}
		}
	})
}

// A credential is made or refused, whatever it is.
func FuzzCredentials(f *testing.F) {
	f.Add("id:secret:token")
	f.Add(`{"access_key_id":"a","secret_access_key":"b","tenant_id":"c","client_id":"d","client_secret":"e"}`)
	f.Add(`{"private_key":"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----","client_email":"x","token_uri":"https://x"}`)
	f.Add(strings.Repeat(":", 255))
	f.Add("")
	f.Add(strings.Repeat("x", 1<<16))
	common := map[string]any{"credential": "kbs:///a/b/c", "endpoint_url": "https://127.0.0.1:1"}
	var all []driver
	for provider, own := range map[string]map[string]any{
		"aws": {"region": "eu-central-1"}, "gcp": {}, "azure": {}, "vault": {}, "aliyun": {"client_type": "sts_token", "region_id": "cn-shanghai"},
	} {
		maps.Copy(own, common)
		d, err := plan(provider, own, nil)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, d)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, d := range all {
			s, err := d.open(env{now: time.Now, pause: pause.For, timeout: time.Second}, []secret.Bytes{secret.Copy([]byte(text))})
			if err == nil {
				s.close()
			} else if fault.CodeOf(err) != fault.Unauthenticated {
				t.Errorf("%T: %s", d, fault.CodeOf(err))
			}
		}
	})
}

// A key that comes to nothing is not left behind.
func TestKeyedTakesTheKeyOver(t *testing.T) {
	for name, c := range map[string]struct{ id, roots string }{
		"no access key": {"a b", ""},
		"no roots":      {"AKID", "x"},
	} {
		key := accessKey{id: c.id, secret: secret.Copy([]byte("hunter2")), session: secret.Copy([]byte("token"))}
		raw := [][]byte{key.secret.Reveal(), key.session.Reveal()}
		if _, err := newKeyed(env{}, c.roots, key); err == nil {
			t.Fatalf("%s: it was taken", name)
		}
		for _, b := range raw {
			if strings.Trim(string(b), "\x00") != "" {
				t.Errorf("%s: %q is left", name, b)
			}
		}
	}
}
