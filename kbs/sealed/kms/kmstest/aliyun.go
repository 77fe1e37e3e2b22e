package kmstest

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"
)

const aliyunID = "STS.example"

// Aliyun is the public gateway of Alibaba's Key Management Service, for the
// client type sts_token.
func Aliyun(t testing.TB) *Service {
	key, session := word(), word()
	s := newService(t, "aliyun", func(s *Service, w http.ResponseWriter, r *http.Request) { s.serveAliyun(w, r, key, session) })
	const path = "/run/confidential-containers/cdh/kbs/aliyun/sts"
	s.Settings["client_type"], s.Settings["region_id"] = "sts_token", "cn-shanghai"
	s.Resources = map[string]string{CredentialURI: aliyunID + ":" + key + ":" + session + "\n"}
	s.Files = map[string]string{path: CredentialURI}
	s.Secret = func(name string) string { return name }
	s.Key = func(name string) string { return "key-" + name }
	return s
}

func (s *Service) serveAliyun(w http.ResponseWriter, r *http.Request, key, session string) {
	fail := func(status int, code string) { answer(w, status, map[string]string{"Code": code, "RequestId": word()}) }
	q := r.URL.Query()
	switch {
	case r.Method != http.MethodPost || r.Header.Get("X-Acs-Version") != "2016-01-20":
		fail(http.StatusBadRequest, "InvalidVersion")
		return
	case !s.signedByAliyun(r, key):
		fail(http.StatusBadRequest, "SignatureDoesNotMatch")
		return
	case r.Header.Get("X-Acs-Security-Token") != session:
		fail(http.StatusBadRequest, "InvalidSecurityToken.Expired")
		return
	case strings.HasSuffix(q.Get("SecretName")+q.Get("KeyId"), Denied):
		fail(http.StatusForbidden, "Forbidden.NoPermission")
		return
	}
	switch r.Header.Get("X-Acs-Action") {
	case "Encrypt":
		sealed := s.seal([]byte(q.Get("Plaintext")), []byte(q.Get("EncryptionContext")))
		answer(w, http.StatusOK, map[string]string{"CiphertextBlob": base64.StdEncoding.EncodeToString(sealed), "KeyId": q.Get("KeyId")})
	case "Decrypt":
		sealed, _ := base64.StdEncoding.DecodeString(q.Get("CiphertextBlob"))
		plain, err := s.open(sealed, []byte(q.Get("EncryptionContext")))
		if err != nil {
			fail(http.StatusBadRequest, "InvalidParameter")
			return
		}
		answer(w, http.StatusOK, map[string]string{"Plaintext": string(plain)})
	case "GetSecretValue":
		if q.Get("SecretName") != "app" {
			fail(http.StatusNotFound, "Forbidden.ResourceNotFound")
			return
		}
		answer(w, http.StatusOK, map[string]string{"SecretData": Value + q.Get("VersionStage"), "SecretDataType": "text"})
	default:
		fail(http.StatusNotFound, "InvalidAction.NotFound")
	}
}

// signedByAliyun verifies as "Request structure and signature V3" says.
func (s *Service) signedByAliyun(r *http.Request, secret string) bool {
	c, ok := readClaim(r, nil)
	when, err := time.Parse("2006-01-02T15:04:05Z", r.Header.Get("X-Acs-Date"))
	return ok && err == nil && c.scheme == "ACS3-HMAC-SHA256" && c.credential == aliyunID && c.covers(r, "x-acs-") && s.recent(when) &&
		r.Header.Get("X-Acs-Content-Sha256") == sum(nil) && s.first(r.Header.Get("X-Acs-Signature-Nonce")) &&
		c.is(keyed([]byte(secret), "ACS3-HMAC-SHA256\n"+sum([]byte(c.canonical))))
}
