package kmstest

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	awsID     = "AKIAEXAMPLE"
	awsRegion = "eu-central-1"
)

// AWS is KMS and Secrets Manager, with a session's credential.
func AWS(t testing.TB) *Service {
	key, session := word(), word()
	s := newService(t, "aws", func(s *Service, w http.ResponseWriter, r *http.Request) { s.serveAWS(w, r, key, session) })
	s.Settings["region"] = awsRegion
	s.Resources = map[string]string{CredentialURI: text(map[string]string{
		"access_key_id": awsID, "secret_access_key": key, "session_token": session,
	})}
	s.Files = map[string]string{"/run/confidential-containers/cdh/kbs/kms-credential/aws/credential.json": CredentialURI}
	s.Secret = func(name string) string { return name }
	s.Key = func(name string) string { return "arn:aws:kms:eu-central-1:1:key/" + name }
	return s
}

func (s *Service) serveAWS(w http.ResponseWriter, r *http.Request, key, session string) {
	fail := func(kind string) {
		answer(w, http.StatusBadRequest, map[string]string{"__type": "com.amazonaws#" + kind})
	}
	raw, err := body(r)
	if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" {
		fail("SerializationException")
		return
	}
	target := r.Header.Get("X-Amz-Target")
	service := map[string]string{"TrentService": "kms", "secretsmanager": "secretsmanager"}[strings.Split(target, ".")[0]]
	if !s.signedByAWS(r, raw, key, service) {
		fail("InvalidSignatureException")
		return
	}
	if r.Header.Get("X-Amz-Security-Token") != session {
		fail("UnrecognizedClientException")
		return
	}
	var in struct {
		KeyID             string `json:"KeyId"`
		Plaintext         []byte
		CiphertextBlob    []byte
		EncryptionContext map[string]string
		SecretID          string `json:"SecretId"`
		VersionStage      string
	}
	if json.Unmarshal(raw, &in) != nil {
		fail("SerializationException")
		return
	}
	if strings.HasSuffix(in.KeyID+in.SecretID, Denied) {
		fail("AccessDeniedException")
		return
	}
	bound := []byte(in.KeyID + text(in.EncryptionContext))
	switch target {
	case "TrentService.Encrypt":
		answer(w, http.StatusOK, map[string]any{"CiphertextBlob": s.seal(in.Plaintext, bound), "KeyId": in.KeyID})
	case "TrentService.Decrypt":
		plain, err := s.open(in.CiphertextBlob, bound)
		if err != nil {
			fail("InvalidCiphertextException")
			return
		}
		answer(w, http.StatusOK, map[string]any{"Plaintext": plain, "KeyId": in.KeyID})
	case "secretsmanager.GetSecretValue":
		switch in.SecretID {
		case "app":
			answer(w, http.StatusOK, map[string]any{"Name": "app", "SecretString": Value + in.VersionStage})
		case "binary":
			answer(w, http.StatusOK, map[string]any{"Name": "binary", "SecretBinary": []byte{0, 1, 2}})
		default:
			fail("ResourceNotFoundException")
		}
	default:
		fail("UnknownOperationException")
	}
}

// signedByAWS verifies as the "Signature Version 4 signing process" says.
func (s *Service) signedByAWS(r *http.Request, payload []byte, secret, service string) bool {
	c, ok := readClaim(r, payload)
	stamp := r.Header.Get("X-Amz-Date")
	when, err := time.Parse("20060102T150405Z", stamp)
	scope := stamp[:min(8, len(stamp))] + "/" + awsRegion + "/" + service + "/aws4_request"
	if !ok || err != nil || service == "" || c.scheme != "AWS4-HMAC-SHA256" || c.credential != awsID+"/"+scope || !c.covers(r, "x-amz-") || !s.recent(when) {
		return false
	}
	key := []byte("AWS4" + secret)
	for _, part := range strings.Split(scope, "/") {
		key = keyed(key, part)
	}
	return c.is(keyed(key, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+sum([]byte(c.canonical))))
}
