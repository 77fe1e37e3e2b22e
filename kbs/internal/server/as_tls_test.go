package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/reference"
)

// clientPair is a certificate authority in a file and a client's certificate of
// its making.
func clientPair(t *testing.T) (path string, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "other brokers"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// With TLS, gRPC and the key set still share one port; with client_ca, nobody
// without a certificate gets through.
func TestServicesOverTLS(t *testing.T) {
	s := newStage(t)
	s.stop()
	ca, pair := clientPair(t)
	s.cfg.AttestationService.GRPC.Sockets = []string{"127.0.0.1:0"}
	s.cfg.AttestationService.REST.Sockets = []string{"127.0.0.1:0"}
	s.cfg.AttestationService.GRPC.ClientCA = ca
	s.start()
	ask := func(certs ...tls.Certificate) error {
		conf := tlsRoots(s.roots)
		conf.Certificates = certs
		conn, err := grpc.NewClient(s.listeners.AS[0].Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(conf)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, err = pb.NewAttestationServiceClient(conn).GetAttestationChallenge(t.Context(), &pb.ChallengeRequest{Inner: map[string]string{"tee": "snp"}})
		return err
	}
	if err := ask(pair); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	if err := ask(); status.Code(err) != codes.Unavailable {
		t.Errorf("without: %v", err)
	}
	_, stranger := clientPair(t)
	if err := ask(stranger); status.Code(err) != codes.Unavailable {
		t.Errorf("with a stranger's: %v", err)
	}
	change := func(certs ...tls.Certificate) error {
		conf := tlsRoots(s.roots)
		conf.Certificates = certs
		conn, err := grpc.NewClient(s.listeners.AS[0].Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(conf)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, err = pb.NewAttestationServiceClient(conn).SetAttestationPolicy(t.Context(), &pb.SetPolicyRequest{PolicyId: "c_cpu", Policy: b64([]byte("package policy"))})
		return err
	}
	if err := change(pair); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a certificate without a configured name: %v", err)
	}
	s.stop()
	s.cfg.AttestationService.GRPC.AdminNames = []string{"other brokers"}
	s.start()
	if err := change(pair); err != nil {
		t.Errorf("a certificate with a configured name: %v", err)
	}
	all := s.entries()
	if e := all[len(all)-1]; e.Kind != api.AuditPolicyPut || e.Subject != "admin:other brokers@attestation_service.grpc" {
		t.Errorf("entry %+v", e)
	}
	for _, http2 := range []bool{false, true} {
		conf := tlsRoots(s.roots)
		conf.Certificates = []tls.Certificate{pair}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: http2}}
		resp, err := client.Get("https://" + s.listeners.AS[0].Addr().String() + api.PathJWKS)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || (resp.ProtoMajor == 2) != http2 {
			t.Errorf("key set: %s %s", resp.Proto, resp.Status)
		}
		client.CloseIdleConnections()
	}
	if a := s.send(http.MethodGet, "https://"+s.listeners.REST[0].Addr().String()+"/healthz", nil); a.status != http.StatusOK {
		t.Errorf("REST over TLS: %d", a.status)
	}
}

// Open as the field's services are, if that is what was asked for, and loudly.
func TestOpenChanges(t *testing.T) {
	s := newStage(t)
	s.stop()
	s.cfg.RVPS.GRPC.Sockets, s.cfg.RVPS.GRPC.InsecureHTTP, s.cfg.RVPS.GRPC.InsecureOpenChanges = []string{"127.0.0.1:0"}, true, true
	s.start()
	rv := reference.NewReferenceValueProviderServiceClient(dial(t, s.listeners.RVPS[0]))
	message := `{"version":"0.1.0","type":"sample","payload":"` + base64.StdEncoding.EncodeToString([]byte(`{"a":[1]}`)) + `"}`
	if _, err := rv.RegisterReferenceValue(t.Context(), &reference.ReferenceValueRegisterRequest{Message: message}); err != nil {
		t.Error(err)
	}
	if out, err := rv.QueryReferenceValue(t.Context(), &reference.ReferenceValueQueryRequest{ReferenceValueId: "a"}); err != nil || out.GetReferenceValueResults() != "[1]" {
		t.Errorf("%v, %v", out, err)
	}
	// A credential that is no good is no good.
	if _, err := rv.RegisterReferenceValue(as(t, "Bearer a.b.c"), &reference.ReferenceValueRegisterRequest{Message: message}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a forged token: %v", err)
	}
	all, loud := s.entries(), false
	for _, e := range all {
		loud = loud || e.Kind == api.AuditBrokerStart && strings.Contains(e.Details["insecure"], "rvps.grpc.insecure_open_changes")
	}
	if !loud || all[len(all)-1].Subject != "admin:anybody@rvps.grpc" {
		t.Errorf("entries %+v", all)
	}
	// The broker's own listener is as it was.
	if a := s.send(http.MethodPost, s.adminURL+api.PathReferenceValue, []byte(message)); a.status != http.StatusUnauthorized {
		t.Errorf("the administrators' listener: %d", a.status)
	}
}
