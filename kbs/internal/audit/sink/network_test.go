package sink

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jcs"
)

// events makes a batch without a log.
func events(t *testing.T, from, n int64) []Event {
	t.Helper()
	var out []Event
	for i := range n {
		e := api.AuditEntry{
			Index: from + i, Time: time.UnixMicro(1921641845123456).UTC(), Kind: api.AuditRelease, Decision: "deny", Code: "policy_denied",
			Ticket: "7QK2-M9TD", Subject: "snp/1", Object: "resource/a/b/c",
		}
		leaf, err := jcs.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, Event{e, leaf})
	}
	return out
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tlsServer serves and returns the file with the CA that vouches for it.
func tlsServer(t *testing.T, h http.Handler) (url, ca string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca = write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	return srv.URL, ca
}

func client(t *testing.T, ca string) *http.Client {
	t.Helper()
	c, err := TLS(ca, "", "")
	if err != nil {
		t.Fatal(err)
	}
	return NewClient(c)
}

func webhook(t *testing.T, url, ca, secret string) *Webhook {
	t.Helper()
	w := &Webhook{HTTP: HTTP{URL: url, Client: client(t, ca)}, Log: source.Log, Secret: secret, Format: AsEntry, Now: time.Now}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// check verifies a webhook's signature as a receiver should.
func check(r *http.Request, body []byte, key string) error {
	var unix int64
	var sum string
	if _, err := fmt.Sscanf(r.Header.Get(SignatureHeader), "t=%d,v1=%s", &unix, &sum); err != nil {
		return err
	}
	h := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(h, "%d.%s", unix, body)
	if got, err := hex.DecodeString(sum); err != nil || !hmac.Equal(got, h.Sum(nil)) || time.Since(time.Unix(unix, 0)) > time.Minute {
		return fmt.Errorf("bad signature %s", r.Header.Get(SignatureHeader))
	}
	return nil
}

// hook is a receiver that checks what it gets.
func hook(t *testing.T, got *receiver, key string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var in struct {
			Log    string           `json:"log"`
			Events []api.AuditEntry `json:"events"`
		}
		if err := errors.Join(err, check(r, body, key), json.Unmarshal(body, &in)); err != nil {
			t.Error(err)
		}
		first, last := in.Events[0].Index, in.Events[len(in.Events)-1].Index
		if want := fmt.Sprintf("%s/%d-%d", source.Log, first, last); in.Log != source.Log || r.Header.Get(IdempotencyHeader) != want {
			t.Errorf("log %q, idempotency %q, want %q", in.Log, r.Header.Get(IdempotencyHeader), want)
		}
		for _, e := range in.Events {
			got.take(e.Index)
		}
	})
}

func TestWebhook(t *testing.T) {
	got := newReceiver()
	url, ca := tlsServer(t, hook(t, got, "hush"))
	secret := write(t, "secret", "hush\n")
	w := webhook(t, url, ca, secret)
	if err := w.Deliver(t.Context(), events(t, 0, 3)); err != nil {
		t.Fatal(err)
	}
	got.wait(t, 3)
	w.Secret = write(t, "empty", "")
	if err := w.Deliver(t.Context(), events(t, 0, 3)); err == nil {
		t.Error("delivered without a secret")
	}
}

// A receiver that misbehaves in any way has not confirmed.
func TestWebhookMisbehaves(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		want func(error) bool
	}{
		"500": {status(500), nil},
		"404": {status(404), nil},
		"413": {status(413), func(err error) bool { return errors.Is(err, ErrTooLarge) }},
		"429": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
		}, func(err error) bool {
			asked, ok := errors.AsType[*retryError](err)
			return ok && asked.after == 7*time.Second
		}},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, nil},
		"slow": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // the server notices a client that goes only then
			<-r.Context().Done()
			panic(http.ErrAbortHandler) // to return would be to answer 200, which may still arrive
		}, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		"cut": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil},
		"half": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("half"))
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			url, ca := tlsServer(t, c.h)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if name == "slow" {
				ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			}
			defer cancel()
			err := webhook(t, url, ca, write(t, "s", "x")).Deliver(ctx, events(t, 0, 1))
			if err == nil || (c.want != nil && !c.want(err)) {
				t.Errorf("%v", err)
			}
		})
	}
}

// otherCA is a root that vouches for nobody here.
func otherCA(t *testing.T) string {
	t.Helper()
	cert, _ := makeCertificate(t)
	return write(t, "other.pem", string(cert))
}

func TestReceiversAreVerified(t *testing.T) {
	got := newReceiver()
	url, _ := tlsServer(t, hook(t, got, "x"))
	err := webhook(t, url, otherCA(t), write(t, "s", "x")).Deliver(t.Context(), events(t, 0, 1))
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok || got.count() != 0 {
		t.Errorf("webhook: %v", err)
	}
	ln, addr := syslogListener(t, true)
	go serveSyslog(ln, got, nil)
	c, err := TLS(otherCA(t), "", "")
	if err != nil {
		t.Fatal(err)
	}
	s := &Syslog{Address: "tls://" + addr, TLS: c, Source: source, Format: AsEntry}
	if err := s.Deliver(t.Context(), events(t, 0, 1)); err == nil || got.count() != 0 {
		t.Errorf("syslog: %v", err)
	}
	if _, err := TLS(write(t, "none.pem", "none"), "", ""); err == nil {
		t.Error("a file without a certificate is no root")
	}
}

// From the log to a receiver that fails in every way in turn: in the end it
// has every entry, in order.
func TestWebhookEndToEnd(t *testing.T) {
	s := newStage(t)
	s.fill(40)
	got := newReceiver()
	good := hook(t, got, "x")
	var calls atomic.Int64
	url, ca := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch calls.Add(1) {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			good.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler) // taken, and not confirmed
		case 3:
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		default:
			good.ServeHTTP(w, r)
		}
	}))
	set := s.open("one", Spec{Name: "siem", Sink: webhook(t, url, ca, write(t, "s", "x")), Timeout: time.Second})
	s.run(set)
	got.wait(t, 40)
	s.fill(3)
	got.wait(t, 43)
}

func TestOTLP(t *testing.T) {
	got := newReceiver()
	var answer atomic.Value
	answer.Store(`{"partialSuccess":{}}`)
	url, ca := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in otlpRequest
		body, err := io.ReadAll(r.Body)
		if err := errors.Join(err, json.Unmarshal(body, &in)); err != nil || r.URL.Path != "/v1/logs" || r.Header.Get("Authorization") != "Bearer x" ||
			r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v: %v", r.URL, r.Header, err)
		}
		for _, rec := range in.ResourceLogs[0].ScopeLogs[0].LogRecords {
			if rec.TimeUnixNano != "1921641845123456000" || rec.SeverityNumber != 13 || rec.EventName != "audit.release" || !json.Valid([]byte(*rec.Body.String)) {
				t.Errorf("record %+v", rec)
			}
			for _, a := range rec.Attributes {
				if a.Key == "audit.index" {
					n, err := strconv.ParseInt(*a.Value.Int, 10, 64)
					if err != nil {
						t.Error(err)
					}
					got.take(n)
				}
			}
		}
		_, _ = w.Write([]byte(answer.Load().(string)))
	}))
	s := &OTLP{HTTP: HTTP{URL: url + "/v1/logs", Authorization: write(t, "auth", "Bearer x\n"), Client: client(t, ca)}, Source: source, Format: AsOCSF(source)}
	if err := s.Deliver(t.Context(), events(t, 0, 2)); err != nil {
		t.Fatal(err)
	}
	got.wait(t, 2)
	for text, want := range map[string]error{`{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}`: ErrTooLarge, `<html>`: nil} {
		answer.Store(text)
		if err := s.Deliver(t.Context(), events(t, 0, 2)); err == nil || (want != nil && !errors.Is(err, want)) {
			t.Errorf("%s: %v", text, err)
		}
	}
	answer.Store("")
	if err := s.Deliver(t.Context(), events(t, 0, 1)); err != nil {
		t.Error(err)
	}
}

var syslogForm = regexp.MustCompile(`^<108>1 2030-11-23T05:24:05\.123456Z host vouchsafe-kbs - release \[meta sequenceId="(\d+)"\] (\{.*\})$`)

// takeSyslog checks one message and returns the index.
func takeSyslog(msg []byte, got *receiver) error {
	m := syslogForm.FindSubmatch(msg)
	if m == nil {
		return fmt.Errorf("message %q", msg)
	}
	sequence, err := strconv.ParseInt(string(m[1]), 10, 64)
	index := indexIn(m[2])
	if err != nil || sequence != index+1 {
		return fmt.Errorf("message %q: sequence %d, index %d", msg, sequence, index)
	}
	got.take(index)
	return nil
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	cert, key := makeCertificate(t)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func syslogListener(t *testing.T, secure bool) (net.Listener, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	addr := ln.Addr().String()
	if secure {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}})
	}
	return ln, addr
}

// serveSyslog reads octet-counted frames. before is called with each
// connection's number before it is read; false cuts it.
func serveSyslog(ln net.Listener, got *receiver, before func(n int, c net.Conn) bool) {
	for n := 0; ; n++ {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		if before != nil && !before(n, c) {
			continue
		}
		go func() {
			defer func() { _ = c.Close() }()
			r := bufio.NewReader(c)
			for {
				text, err := r.ReadString(' ')
				if err != nil {
					return
				}
				size, err := strconv.Atoi(strings.TrimSpace(text))
				if err != nil {
					return
				}
				msg := make([]byte, size)
				if _, err := io.ReadFull(r, msg); err != nil || takeSyslog(msg, got) != nil {
					return
				}
			}
		}()
	}
}

func TestSyslogStreams(t *testing.T) {
	for _, secure := range []bool{false, true} {
		ln, addr := syslogListener(t, secure)
		got := newReceiver()
		go serveSyslog(ln, got, nil)
		s := &Syslog{Address: "tcp://" + addr, Hostname: "host", Source: source, Format: AsEntry}
		if secure {
			cert, err := x509.ParseCertificate(peer(t, addr))
			if err != nil {
				t.Fatal(err)
			}
			pool := x509.NewCertPool()
			pool.AddCert(cert)
			s.Address, s.TLS = "tls://"+addr, &tls.Config{RootCAs: pool}
		}
		for i := range int64(3) {
			if err := s.Deliver(t.Context(), events(t, 2*i, 2)); err != nil {
				t.Fatal(err)
			}
		}
		got.wait(t, 6)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// peer asks a server for its certificate.
func peer(t *testing.T, addr string) []byte {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	return c.ConnectionState().PeerCertificates[0].Raw
}

// A connection that is cut before it was read has delivered nothing, and one
// that is cut later gets its last batch again.
func TestSyslogCut(t *testing.T) {
	ln, addr := syslogListener(t, false)
	got := newReceiver()
	second := make(chan net.Conn, 1)
	go serveSyslog(ln, got, func(n int, c net.Conn) bool {
		switch n {
		case 0:
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
			return false
		case 1:
			second <- c
			return false // accepted, never read
		}
		return true
	})
	s := &Syslog{Address: "tcp://" + addr, Hostname: "host", Source: source, Format: AsEntry}
	defer func() { _ = s.Close() }()
	if err := s.Deliver(t.Context(), events(t, 0, 2)); err == nil {
		t.Fatal("a connection that was cut took a batch")
	}
	if err := s.Deliver(t.Context(), events(t, 0, 2)); err != nil {
		t.Fatal(err)
	}
	c := <-second
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
	<-s.ended
	if err := s.Deliver(t.Context(), events(t, 2, 2)); err != nil {
		t.Fatal(err)
	}
	got.wait(t, 4)
}

func TestSyslogDatagrams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.sock")
	for network, address := range map[string]string{"unixgram": path, "udp": "127.0.0.1:0"} {
		pc, err := net.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = pc.Close() }()
		to := "unix://" + path
		if network == "udp" {
			to = "udp://" + pc.LocalAddr().String()
		}
		s := &Syslog{Address: to, Hostname: "host", Source: source, Format: AsEntry}
		batch := events(t, 0, 3)
		batch[1].Entry.Details = map[string]string{"long": strings.Repeat("x", maxDatagram)}
		if batch[1].Leaf, err = jcs.Marshal(batch[1].Entry); err != nil {
			t.Fatal(err)
		}
		if err := s.Deliver(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		got, buf := newReceiver(), make([]byte, 64<<10)
		for range batch {
			if err := pc.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			n, _, err := pc.ReadFrom(buf)
			if err := errors.Join(err, takeSyslog(buf[:n], got)); err != nil || n > maxDatagram {
				t.Fatalf("%s: %d bytes, %v", network, n, err)
			}
		}
		got.wait(t, 3)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := (&Syslog{Address: "unix:///none/such", Format: AsEntry}).Deliver(t.Context(), events(t, 0, 1)); err == nil {
		t.Error("delivered to nobody")
	}
}

func TestCEF(t *testing.T) {
	e := events(t, 7, 1)[0]
	e.Entry.Subject = "a=b|c\nd"
	line, err := AsCEF(source)(e)
	want := `CEF:0|Vouchsafe|kbs|test|release|release deny policy_denied resource/a/b/c by a=b\|c d|6|rt=1921641845123 externalId=7 outcome=failure ` +
		`act=deny suser=a\=b|c\nd request=resource/a/b/c reason=policy_denied cs1Label=ticket cs1=7QK2-M9TD cs2Label=tenant cs2=default cs3Label=log cs3=` + source.Log
	if err != nil || string(line) != want {
		t.Errorf("%v\n got %s\nwant %s", err, line, want)
	}
}
