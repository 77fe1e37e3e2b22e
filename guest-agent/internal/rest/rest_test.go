package rest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// pod stands for the hub: what it answers is set by the test, what it was asked
// is kept.
type pod struct {
	value []byte
	err   error
	asked string
	given secret.Bytes

	devices []measure.Platform
}

func (p *pod) answer(asked string) (secret.Bytes, error) {
	p.asked = asked
	if p.err != nil {
		return secret.Bytes{}, p.err
	}
	p.given = secret.Copy(p.value)
	return p.given, nil
}

func (p *pod) Resource(_ context.Context, uri string) (secret.Bytes, error) { return p.answer(uri) }
func (p *pod) Token(_ context.Context, kind string) (secret.Bytes, error)   { return p.answer(kind) }
func (p *pod) Evidence(_ context.Context, data []byte) ([]byte, error) {
	p.asked = string(data)
	return p.value, p.err
}
func (p *pod) Record(_ context.Context, e eventlog.RuntimeEvent) error {
	p.asked = e.String()
	return p.err
}
func (p *pod) AdditionalEvidence(_ context.Context, data []byte) ([]byte, error) {
	p.asked = "devices: " + string(data)
	return p.value, p.err
}
func (p *pod) Platform() measure.Platform              { return measure.SNP }
func (p *pod) AdditionalPlatforms() []measure.Platform { return p.devices }

func TestRoutes(t *testing.T) {
	denied := fault.New(fault.PolicyDenied, errors.New("measurement 2f19 unknown")).With("7QK2-M9TD")
	tests := map[string]struct {
		features, method, target, from string // defaults: all, GET, -, 127.0.0.1
		err                            error
		status                         int
		body, asked                    string
	}{
		"resource":               {target: "/cdh/resource/default/key/1", status: 200, body: "\x00value", asked: "kbs:///default/key/1"},
		"resource, IPv6":         {target: "/cdh/resource/default/key/1", from: "[::1]:7", status: 200, body: "\x00value"},
		"query is dropped":       {target: "/cdh/resource/default/key/1?x=/y", status: 200, body: "\x00value", asked: "kbs:///default/key/1"},
		"denied":                 {target: "/cdh/resource/a/b/c", err: denied, status: 403, body: "policy_denied (ticket 7QK2-M9TD)"},
		"missing":                {target: "/cdh/resource/a/b/c", err: fault.New(fault.NotFound, nil).With("7QK2-M9TD"), status: 404, body: "not_found (ticket 7QK2-M9TD)"},
		"broker away":            {target: "/cdh/resource/a/b/c", err: fault.New(fault.Unavailable, nil), status: 503, body: "unavailable"},
		"unclassified":           {target: "/cdh/resource/a/b/c", err: errors.New("dial 10.0.0.1: 2f19"), status: 500, body: "internal"},
		"two segments":           {target: "/cdh/resource/a/b", status: 400, body: "BAD REQUEST"},
		"four segments":          {target: "/cdh/resource/a/b/c/d", status: 400, body: "BAD REQUEST"},
		"no path":                {target: "/cdh/resource/", status: 400, body: "BAD REQUEST"},
		"empty segment":          {target: "/cdh/resource/a//c", status: 400, body: "BAD REQUEST"},
		"dot dot":                {target: "/cdh/resource/a/../c/d", status: 400, body: "BAD REQUEST"},
		"escaped dot dot":        {target: "/cdh/resource/a/%2e%2e/c", status: 400, body: "BAD REQUEST"},
		"escaped slash":          {target: "/cdh/resource/a/b%2Fc/d", status: 400, body: "BAD REQUEST"},
		"hidden":                 {target: "/cdh/resource/a/b/.c", status: 400, body: "BAD REQUEST"},
		"at sign":                {target: "/cdh/resource/x@evil/b/c", status: 400, body: "BAD REQUEST"},
		"POST":                   {target: "/cdh/resource/a/b/c", method: "POST", status: 405, body: "Method Not Allowed"},
		"HEAD":                   {target: "/cdh/resource/a/b/c", method: "HEAD", status: 405, body: "Method Not Allowed"},
		"resource off":           {target: "/cdh/resource/a/b/c", features: Attestation, status: 404, body: "Resource Feature Not Enabled"},
		"token":                  {target: "/aa/token?token_type=kbs", status: 200, body: "\x00value", asked: "kbs"},
		"token, no type":         {target: "/aa/token", status: 400, body: "BAD REQUEST"},
		"token, two types":       {target: "/aa/token?token_type=kbs&token_type=x", status: 400, body: "BAD REQUEST"},
		"token, other type":      {target: "/aa/token?token_type=jwt", status: 400, body: "BAD REQUEST"},
		"evidence, 64 bytes":     {target: "/aa/evidence?runtime_data=" + strings.Repeat("x", 64), status: 200, body: "\x00value"},
		"evidence, 65 bytes":     {target: "/aa/evidence?runtime_data=" + strings.Repeat("x", 65), status: 400, body: "BAD REQUEST"},
		"token off":              {target: "/aa/token?token_type=kbs", features: Resource, status: 404, body: "Attestation Feature Not Enabled"},
		"token, unknown feature": {target: "/aa/token?token_type=kbs", features: "everything", status: 404, body: "Attestation Feature Not Enabled"},
		"token DELETE":           {target: "/aa/token?token_type=kbs", method: "DELETE", status: 405, body: "Method Not Allowed"},
		"evidence":               {target: "/aa/evidence?runtime_data=a%20b", status: 200, body: "\x00value", asked: "a b"},
		"evidence base64":        {target: "/aa/evidence?runtime_data=_-8&encoding=base64", status: 200, body: "\x00value", asked: "\xff\xef"},
		"evidence bad base64":    {target: "/aa/evidence?runtime_data=_-9&encoding=base64", status: 400, body: "BAD REQUEST"},
		"evidence hex":           {target: "/aa/evidence?runtime_data=00&encoding=hex", status: 400, body: "BAD REQUEST"},
		"evidence, no data":      {target: "/aa/evidence", status: 400, body: "BAD REQUEST"},
		"evidence off":           {target: "/aa/evidence?runtime_data=a", features: Resource, status: 404, body: "Attestation Feature Not Enabled"},
		"info":                   {target: "/info", status: 200, body: `{"version":"Guest Components Version: Vouchsafe","tee":"snp","additional_tees":["nvidia"],"feature":"all"}`},
		"info, attestation only": {target: "/info", features: Attestation, status: 200, body: `{"version":"Guest Components Version: Vouchsafe","tee":"snp","additional_tees":["nvidia"],"feature":"attestation"}`},
		"info, resource only":    {target: "/info", features: Resource, status: 200, body: `{"version":"Guest Components Version: Vouchsafe","feature":"resource"}`},
		"token of a service":     {target: "/aa/token?token_type=coco_as", status: 200, body: "\x00value", asked: "coco_as"},
		"token, no service":      {target: "/aa/token?token_type=coco_as", err: fault.New(fault.Unavailable, nil), status: 503, body: "unavailable"},
		"token, by rule denied":  {target: "/aa/token?token_type=kbs", err: fault.New(fault.Forbidden, nil), status: 403, body: "forbidden"},
		"evidence unavailable":   {target: "/aa/evidence?runtime_data=a", err: fault.New(fault.Unavailable, nil), status: 503, body: "unavailable"},
		"evidence twice":         {target: "/aa/evidence?runtime_data=a&runtime_data=b", status: 400, body: "BAD REQUEST"},
		"devices":                {target: "/aa/additional-evidence?runtime_data=a%20b", status: 200, body: "\x00value", asked: "devices: a b"},
		"devices base64":         {target: "/aa/additional-evidence?runtime_data=_-8&encoding=base64", status: 200, body: "\x00value", asked: "devices: \xff\xef"},
		"devices, no data":       {target: "/aa/additional-evidence", status: 400, body: "BAD REQUEST"},
		"devices off":            {target: "/aa/additional-evidence?runtime_data=a", features: Resource, status: 404, body: "Attestation Feature Not Enabled"},
		"devices PUT":            {target: "/aa/additional-evidence?runtime_data=a", method: "PUT", status: 405, body: "Method Not Allowed"},
		"events off":             {target: "/aa/aael", method: "POST", features: Resource, status: 404, body: "Attestation Feature Not Enabled"},
		"events GET":             {target: "/aa/aael", status: 405, body: "Method Not Allowed"},
		"info POST":              {target: "/info", method: "POST", status: 405, body: "Method Not Allowed"},
		"elsewhere":              {target: "/aa/else", status: 404, body: "URL NOT FOUND"},
		"root":                   {target: "/", status: 404, body: "URL NOT FOUND"},
		"from outside":           {target: "/cdh/resource/a/b/c", from: "10.0.0.9:4", status: 403, body: "Forbidden"},
		"from nowhere":           {target: "/info", from: "@", status: 403, body: "Forbidden"},
		"long":                   {target: "/info?" + strings.Repeat("x", maxTarget), status: 414, body: "URI TOO LONG"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := &pod{value: []byte("\x00value"), err: tc.err, devices: []measure.Platform{measure.NVIDIA}}
			r := httptest.NewRequest(or(tc.method, "GET"), "http://127.0.0.1:8006"+tc.target, strings.NewReader("body"))
			r.RequestURI = tc.target
			r.RemoteAddr = or(tc.from, "127.0.0.1:40000")
			w := httptest.NewRecorder()
			NewHandler(p, p, or(tc.features, All)).ServeHTTP(w, r)
			if w.Code != tc.status || w.Body.String() != tc.body {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, tc.status, tc.body)
			}
			if tc.asked != "" && p.asked != tc.asked {
				t.Errorf("asked for %q, want %q", p.asked, tc.asked)
			}
			if tc.status == 400 && p.asked != "" {
				t.Errorf("a malformed request asked for %q", p.asked)
			}
			if got := w.Header().Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control %q", got)
			}
			if tc.body == "\x00value" && w.Header().Get("Content-Type") != "application/octet-stream" {
				t.Errorf("Content-Type %q", w.Header().Get("Content-Type"))
			}
			if p.given.Len() != 0 {
				t.Error("the secret outlived the answer")
			}
		})
	}
}

// Without devices the answer is empty, and /info does not speak of any.
func TestWithoutDevices(t *testing.T) {
	for target, want := range map[string]string{
		"/aa/additional-evidence?runtime_data=a": "", "/info": `{"version":"Guest Components Version: Vouchsafe","tee":"snp","feature":"all"}`,
	} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		r.RemoteAddr = "127.0.0.1:40000"
		w := httptest.NewRecorder()
		p := &pod{}
		NewHandler(p, p, All).ServeHTTP(w, r)
		if w.Code != http.StatusOK || w.Body.String() != want {
			t.Errorf("%s: %d %q", target, w.Code, w.Body)
		}
	}
}

func TestEvents(t *testing.T) {
	const good = `{"domain":"shop","operation":"Open","content":"till 3"}`
	for name, tc := range map[string]struct {
		features, method, body string // defaults: all, POST, good
		err                    error
		status                 int
		answer, asked          string
	}{
		"recorded":      {status: 200, answer: `{"success":"true"}`, asked: "shop Open till 3"},
		"not supported": {err: aael.ErrNotSupported, status: 200, answer: `{"success":"false","message":"The platform does not support runtime measurement"}`},
		"not enabled":   {err: aael.ErrDisabled, status: 200, answer: `{"success":"false","message":"Attestation Agent does not enable eventlog recording"}`},
		"failed":        {err: fault.New(fault.Internal, errors.New("RTMR3: EIO")).With("7QK2-M9TD"), status: 500, answer: "internal (ticket 7QK2-M9TD)"},
		"GET":           {method: "GET", status: 405, answer: "Method Not Allowed"},
		"no feature":    {features: Resource, status: 404, answer: "Attestation Feature Not Enabled"},
		"no JSON":       {body: "shop Open", status: 400, answer: "BAD REQUEST"},
		"a list":        {body: "[]", status: 400, answer: "BAD REQUEST"},
		"two domains":   {body: `{"domain":"a","domain":"b","operation":"Open","content":""}`, status: 400, answer: "BAD REQUEST"},
		"no operation":  {body: `{"domain":"a","content":""}`, status: 400, answer: "BAD REQUEST"},
		"two lines":     {body: `{"domain":"a","operation":"Open","content":"x\ny"}`, status: 400, answer: "BAD REQUEST"},
		"a space":       {body: `{"domain":"a b","operation":"Open","content":""}`, status: 400, answer: "BAD REQUEST"},
		"too long":      {body: `{"domain":"a","operation":"Open","content":"` + strings.Repeat("x", maxBody) + `"}`, status: 400, answer: "BAD REQUEST"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pod{err: tc.err}
			r := httptest.NewRequest(or(tc.method, "POST"), "http://127.0.0.1:8006/aa/aael", strings.NewReader(or(tc.body, good)))
			r.RequestURI, r.RemoteAddr = "/aa/aael", "127.0.0.1:40000"
			w := httptest.NewRecorder()
			NewHandler(p, p, or(tc.features, All)).ServeHTTP(w, r)
			if w.Code != tc.status || w.Body.String() != tc.answer {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, tc.status, tc.answer)
			}
			if tc.asked != "" && p.asked != tc.asked || tc.status >= 400 && tc.err == nil && p.asked != "" {
				t.Errorf("asked for %q, want %q", p.asked, tc.asked)
			}
		})
	}
}

// slow answers when it is told to.
type slow struct {
	pod
	entered chan struct{}
	answer  chan struct{}
}

func (s *slow) Resource(context.Context, string) (secret.Bytes, error) {
	s.entered <- struct{}{}
	<-s.answer
	return secret.Copy([]byte("v")), nil
}

// However many a workload sends at a time, the agent's memory stays bounded.
func TestTooManyAtOnce(t *testing.T) {
	s := &slow{entered: make(chan struct{}), answer: make(chan struct{})}
	h := NewHandler(s, s, Resource)
	request := func() int {
		r := httptest.NewRequest(http.MethodGet, "/cdh/resource/a/b/c", nil)
		r.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	codes := make(chan int)
	for range MaxRequests {
		go func() { codes <- request() }()
	}
	for range MaxRequests {
		<-s.entered
	}
	if code := request(); code != http.StatusTooManyRequests {
		t.Errorf("one more: %d", code)
	}
	close(s.answer)
	for range MaxRequests {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("one of the first: %d", code)
		}
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var log bytes.Buffer
	p := &pod{value: []byte("v")}
	go func() { done <- Serve(ctx, l, NewHandler(p, p, Resource), slog.New(slog.NewTextHandler(&log, nil))) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/cdh/resource/a/b/c")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "v" || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %q %v", resp.StatusCode, body, err)
	}
	_ = resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Fatalf("shutdown: %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

func TestServeOnlyLoopback(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Skip("cannot listen on all addresses here")
	}
	if err := Serve(t.Context(), l, http.NotFoundHandler(), slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("served on all addresses")
	}
}

// What a valid path names must be exactly what was asked, as three segments.
func FuzzResourcePath(f *testing.F) {
	f.Add("default/key/1")
	f.Add("a/../b")
	f.Add("a/%2e%2e/b")
	f.Fuzz(func(t *testing.T, path string) {
		p := &pod{value: []byte("v")}
		r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1/", nil)
		r.URL.Path, r.URL.RawPath = "/cdh/resource/"+path, ""
		r.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		NewHandler(p, p, Resource).ServeHTTP(w, r)
		if p.asked == "" {
			if w.Code == 200 {
				t.Fatalf("%q: 200 without asking", path)
			}
			return
		}
		if p.asked != "kbs:///"+path || strings.Count(path, "/") != 2 || strings.Contains("/"+path, "/.") {
			t.Fatalf("%q became %q", path, p.asked)
		}
	})
}
