// Package rest serves the loopback REST API for workloads (guest-protocol 16).
// Everything in the pod that shares its network namespace can call it, and
// nothing else can: peers that are not loopback are turned away.
//
// It answers as upstream's api-server-rest does, with these differences:
//
//   - A refusal has the HTTP status of its code (403 denied, 404 no such
//     resource, 503 broker out of reach, ...), where upstream answers 500 for
//     all of them. The body is the code and the ticket, never the reason.
//   - The resource path is checked here, where upstream appends whatever it got
//     to "kbs://". As upstream does, the query string is ignored.
//   - An event that cannot be read is 400, where upstream answers 500.
//   - A wrong method is 405 with an Allow header, as upstream's OpenAPI file
//     says; its code answers 404 or serves the request.
//   - No answer may be cached.
package rest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Feature sets. Any other word enables nothing but /info.
const (
	Resource    = "resource"
	Attestation = "attestation"
	All         = "all"
)

// Limits of one request.
const (
	requestTimeout = 50 * time.Second // upstream's timeout towards its daemons
	maxTarget      = 4 << 10          // bytes of path and query
	maxBody        = 16 << 10         // bytes, of an event
	maxRuntimeData = 64               // bytes that hardware signs (guest-protocol 4.3)
)

// MaxRequests bounds the requests at a time. Who serves no more connections than
// that, and shares those out, lets no caller have all of them: a connection has
// one request at a time.
const MaxRequests = 128

// Resources fetches what workloads ask for. The handler destroys each secret
// once it is written, so every call must return its own.
type Resources interface {
	Resource(ctx context.Context, uri string) (secret.Bytes, error)
}

// Tokens attests on behalf of workloads.
type Tokens interface {
	Token(ctx context.Context, kind string) (secret.Bytes, error)
	Evidence(ctx context.Context, runtimeData []byte) ([]byte, error)
	// AdditionalEvidence is that of devices; nothing without any.
	AdditionalEvidence(ctx context.Context, runtimeData []byte) ([]byte, error)
	Platform() measure.Platform
	AdditionalPlatforms() []measure.Platform
	// Record records a runtime event. Without an event log the error wraps
	// [aael.ErrDisabled] or [aael.ErrNotSupported].
	Record(ctx context.Context, e eventlog.RuntimeEvent) error
}

type handler struct {
	resources Resources
	tokens    Tokens
	features  string
}

// NewHandler returns the API with the given feature set: [Resource],
// [Attestation] or [All].
func NewHandler(h Resources, a Tokens, features string) http.Handler {
	s := handler{resources: h, tokens: a, features: features}
	mux := http.NewServeMux()
	mux.Handle("/info", get(s.info))
	mux.Handle("/cdh/resource/{path...}", s.need(Resource, "Resource Feature Not Enabled", get(s.resource)))
	mux.Handle("/aa/token", s.need(Attestation, "Attestation Feature Not Enabled", get(s.token)))
	mux.Handle("/aa/evidence", s.need(Attestation, "Attestation Feature Not Enabled", get(s.evidence(s.tokens.Evidence))))
	mux.Handle("/aa/additional-evidence", s.need(Attestation, "Attestation Feature Not Enabled", get(s.evidence(s.tokens.AdditionalEvidence))))
	mux.Handle("/aa/aael", s.need(Attestation, "Attestation Feature Not Enabled", only(http.MethodPost, s.event)))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		text(w, http.StatusNotFound, "URL NOT FOUND")
	})
	return guard(mux)
}

func (s handler) enabled(feature string) bool {
	return s.features == All || s.features == feature
}

// need lets requests through only when the feature is enabled.
func (s handler) need(feature, otherwise string, next http.Handler) http.Handler {
	if s.enabled(feature) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		text(w, http.StatusNotFound, otherwise)
	})
}

// guard turns away what does not come from inside the pod and bounds the rest.
func guard(next http.Handler) http.Handler {
	inFlight := make(chan struct{}, MaxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if !loopback(r.RemoteAddr) {
			text(w, http.StatusForbidden, "Forbidden")
			return
		}
		if len(r.RequestURI) > maxTarget {
			text(w, http.StatusRequestURITooLong, "URI TOO LONG")
			return
		}
		// The mux would redirect an unclean path; a workload that sends one is
		// answered like for any other path that is not there.
		if p := r.URL.EscapedPath(); strings.Contains(p, "//") || strings.Contains(p, "/.") || strings.Contains(p, "%") {
			text(w, http.StatusBadRequest, "BAD REQUEST")
			return
		}
		select {
		case inFlight <- struct{}{}:
			defer func() { <-inFlight }()
		default:
			refuse(w, fault.New(fault.TooMany, nil))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func loopback(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// get is [only] for GET, whose body nobody reads.
func get(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return only(http.MethodGet, func(w http.ResponseWriter, r *http.Request) error {
		r.Body = http.NoBody
		return h(w, r)
	})
}

// only adapts a handler that returns errors, for one method.
func only(method string, h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			w.Header().Set("Allow", method)
			text(w, http.StatusMethodNotAllowed, "Method Not Allowed")
			return
		}
		if err := h(w, r); err != nil {
			refuse(w, err)
		}
	})
}

// errBadRequest is upstream's answer to missing or malformed parameters. It
// concerns the request only, so it gets no ticket.
var errBadRequest = errors.New("bad request")

// refuse writes the public part of an error.
func refuse(w http.ResponseWriter, err error) {
	if errors.Is(err, errBadRequest) {
		text(w, http.StatusBadRequest, "BAD REQUEST")
		return
	}
	f := fault.New(fault.Internal, err)
	text(w, f.Code.Status(), f.Public())
}

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // the peer may be gone
}

func binary(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the peer may be gone
}

// version begins as upstream's does, which programs look for.
const version = "Guest Components Version: Vouchsafe"

func (s handler) info(w http.ResponseWriter, _ *http.Request) error {
	info := struct {
		Version    string             `json:"version"`
		TEE        measure.Platform   `json:"tee,omitempty"`
		Additional []measure.Platform `json:"additional_tees,omitempty"`
		Feature    string             `json:"feature"`
	}{Version: version, Feature: s.features}
	if s.enabled(Attestation) {
		info.TEE, info.Additional = s.tokens.Platform(), s.tokens.AdditionalPlatforms()
	}
	body, err := json.Marshal(info)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the peer may be gone
	return nil
}

func (s handler) resource(w http.ResponseWriter, r *http.Request) error {
	uri := "kbs:///" + r.PathValue("path")
	// Only what is spelt as the broker spells it: the URI must come out of the
	// parser as it went in, without a query hidden in the path.
	if u, err := client.ParseResourceURI(uri); err != nil || u.Query != "" || u.String() != uri {
		return errBadRequest
	}
	value, err := s.resources.Resource(r.Context(), uri)
	if err != nil {
		return err
	}
	defer value.Destroy()
	binary(w, value.Reveal())
	return nil
}

func (s handler) token(w http.ResponseWriter, r *http.Request) error {
	query, err := parameters(r)
	if err != nil {
		return err
	}
	kind := query.Get("token_type")
	if kind != "kbs" && kind != "coco_as" { // guest-protocol 7.1
		return errBadRequest
	}
	value, err := s.tokens.Token(r.Context(), kind)
	if err != nil {
		return err
	}
	defer value.Destroy()
	binary(w, value.Reveal())
	return nil
}

// evidence answers with evidence over what the request brings.
func (s handler) evidence(obtain func(ctx context.Context, runtimeData []byte) ([]byte, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		data, err := runtimeData(r)
		if err != nil {
			return err
		}
		evidence, err := obtain(r.Context(), data)
		if err != nil {
			return err
		}
		binary(w, evidence)
		return nil
	}
}

// runtimeData is what evidence is to be over: the text of the parameter, or with
// encoding=base64 the bytes of its base64url.
func runtimeData(r *http.Request) ([]byte, error) {
	query, err := parameters(r)
	if err != nil {
		return nil, err
	}
	if !query.Has("runtime_data") {
		return nil, errBadRequest
	}
	data := []byte(query.Get("runtime_data"))
	switch query.Get("encoding") {
	case "":
	case "base64":
		if data, err = base64.RawURLEncoding.Strict().DecodeString(string(data)); err != nil {
			return nil, errBadRequest
		}
	default:
		return nil, errBadRequest
	}
	if len(data) > maxRuntimeData {
		return nil, errBadRequest
	}
	return data, nil
}

// parameters parses the query, refusing repeated keys: two readers could
// disagree on which one counts.
func parameters(r *http.Request) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errBadRequest
	}
	for _, v := range query {
		if len(v) != 1 {
			return nil, errBadRequest
		}
	}
	return query, nil
}
