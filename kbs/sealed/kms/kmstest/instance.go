package kmstest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	instanceKeyID = "KAAP.example"
	instanceName  = "kst-example"
)

// AliyunInstance is the gateway of a KMS instance of Alibaba's, for the client
// type client_key. It needs the program openssl, and skips the test without.
func AliyunInstance(t testing.TB) *Service {
	t.Helper()
	key, password := newRSA(t), word()
	s := newService(t, "aliyun", func(s *Service, w http.ResponseWriter, r *http.Request) { s.serveInstance(w, r, &key.PublicKey) })
	s.Settings = map[string]any{"endpoint_url": s.URL, "client_type": "client_key", "client_key_id": instanceKeyID, "kms_instance_id": instanceName}
	s.Resources = map[string]string{
		"kbs:///prod/kms/ca": s.Roots(), "kbs:///prod/kms/password": password + "\n",
		CredentialURI: text(map[string]string{"KeyId": instanceKeyID, "PrivateKeyData": bundle(t, key, password)}),
	}
	const dir = "/run/confidential-containers/cdh/kbs/kms-credential/aliyun/"
	s.Files = map[string]string{
		dir + "PrivateKmsCA_" + instanceName + ".pem": "kbs:///prod/kms/ca", dir + "password_" + instanceKeyID + ".json": "kbs:///prod/kms/password",
		dir + "clientKey_" + instanceKeyID + ".json": CredentialURI,
	}
	s.Secret = func(name string) string { return name }
	s.Key = func(name string) string { return "key-" + name }
	return s
}

// bundle is PKCS #12 in base64, in the old form that Alibaba hands out.
func bundle(t testing.TB, key *rsa.PrivateKey, password string) string {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("the program openssl is needed, which makes PKCS #12")
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	both := append(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...)
	if err := os.WriteFile(file, both, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "pkcs12", "-export", "-legacy", "-in", file, "-passout", "pass:"+password).Output()
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(out)
}

func (s *Service) serveInstance(w http.ResponseWriter, r *http.Request, key *rsa.PublicKey) {
	raw, err := body(r)
	if err != nil || !s.signedForInstance(r, raw, key) {
		instanceError(w, http.StatusUnauthorized, "SignatureDoesNotMatch")
		return
	}
	in := map[protowire.Number][]byte{}
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		raw = raw[n:]
		m := protowire.ConsumeFieldValue(number, kind, raw)
		if kind == protowire.BytesType {
			in[number], _ = protowire.ConsumeBytes(raw)
		}
		raw = raw[m:]
	}
	switch r.Header.Get("X-Kms-Apiname") {
	case "Encrypt":
		if !s.instanceKey(w, string(in[1])) {
			return
		}
		sealed := s.seal(in[2], slices.Concat(in[1], in[3]))
		instanceAnswer(w, http.StatusOK, map[protowire.Number]string{1: string(in[1]), 2: string(sealed[12:]), 3: string(sealed[:12])})
	case "Decrypt":
		if !s.instanceKey(w, string(in[2])) {
			return
		}
		plain, err := s.open(slices.Concat(in[5], in[1]), slices.Concat(in[2], in[3]))
		if err != nil {
			instanceError(w, http.StatusBadRequest, "DecryptError")
			return
		}
		instanceAnswer(w, http.StatusOK, map[protowire.Number]string{1: string(in[2]), 2: string(plain)})
	case "GetSecretValue":
		switch string(in[1]) {
		case "app":
			instanceAnswer(w, http.StatusOK, map[protowire.Number]string{1: "app", 3: Value + string(in[2])})
		case Denied:
			instanceError(w, http.StatusForbidden, "Forbidden.NoPermission")
		default:
			instanceError(w, http.StatusNotFound, "Forbidden.ResourceNotFound")
		}
	}
}

func (s *Service) instanceKey(w http.ResponseWriter, id string) bool {
	if strings.HasSuffix(id, Denied) {
		instanceError(w, http.StatusForbidden, "Forbidden.NoPermission")
		return false
	}
	return true
}

// signedForInstance verifies what guest-protocol 10.3 says is signed.
func (s *Service) signedForInstance(r *http.Request, payload []byte, key *rsa.PublicKey) bool {
	const content = "application/x-protobuf"
	digest := sha256.Sum256(payload)
	sha := strings.ToUpper(hex.EncodeToString(digest[:]))
	when, err := http.ParseTime(r.Header.Get("Date"))
	if err != nil || !s.recent(when) || r.Header.Get("Content-Sha256") != sha || r.Header.Get("Content-Type") != content ||
		r.Header.Get("X-Kms-Apiversion") != "dkms-gcs-0.2" || r.Header.Get("X-Kms-Acccesskeyid") != instanceKeyID {
		return false
	}
	lines := []string{"POST", sha, content, r.Header.Get("Date")}
	for _, name := range []string{"x-kms-acccesskeyid", "x-kms-apiname", "x-kms-apiversion", "x-kms-signaturemethod"} {
		lines = append(lines, name+":"+r.Header.Get(name))
	}
	hash := sha256.Sum256([]byte(strings.Join(append(lines, "/"), "\n")))
	signature, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	return err == nil && rsa.VerifyPKCS1v15(key, crypto.SHA256, hash[:], signature) == nil
}

func instanceAnswer(w http.ResponseWriter, status int, fields map[protowire.Number]string) {
	var raw []byte
	for n := protowire.Number(1); n <= 4; n++ {
		if value, ok := fields[n]; ok {
			raw = protowire.AppendString(protowire.AppendTag(raw, n, protowire.BytesType), value)
		}
	}
	w.WriteHeader(status)
	_, _ = w.Write(raw)
}

func instanceError(w http.ResponseWriter, status int, code string) {
	instanceAnswer(w, status, map[protowire.Number]string{2: code, 3: "no"})
}
