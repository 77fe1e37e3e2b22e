package asapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// door is the broker's own API for administrators. What an Attestation Service
// lets its callers change is changed through it, with the credential that came
// along: roles, approvals, quotas, tickets and the audit log are those of the
// one API, whatever protocol a change arrives by.
type door struct{ http.Handler }

// refusal is an answer of the door that is not a success.
type refusal struct {
	status int
	code   fault.Code // "" if the door gave none that is known
	text   string     // as the field's API words it, with code and ticket
}

func (r *refusal) Error() string { return r.text }

func (d door) setPolicy(ctx context.Context, authorization, id, policy string) error {
	_, err := d.post(ctx, authorization, api.PathAttestationPolicy, map[string]string{"type": "rego", "policy_id": id, "policy": policy})
	return err
}

func (d door) register(ctx context.Context, authorization string, message []byte) error {
	_, err := d.call(ctx, authorization, http.MethodPost, api.PathReferenceValue, message)
	return err
}

// query returns nil if there is no value of this name in force.
func (d door) query(ctx context.Context, authorization, name string) (json.RawMessage, error) {
	raw, err := d.call(ctx, authorization, http.MethodGet, api.PathReferenceValue+"/"+(&url.URL{Path: name}).EscapedPath(), nil)
	if r, ok := err.(*refusal); ok && r.status == http.StatusNotFound { //nolint:errorlint // made here
		return nil, nil
	}
	return raw, err
}

// policies returns the ids of the attestation policies.
func (d door) policies(ctx context.Context, authorization string) ([]string, error) {
	raw, err := d.call(ctx, authorization, http.MethodGet, api.PathPolicies, nil)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []api.Policy `json:"items"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fault.Newf(fault.Internal, "list of policies: %w", err)
	}
	ids := []string{}
	for _, p := range list.Items {
		if p.Kind == "attestation" {
			ids = append(ids, p.ID)
		}
	}
	return ids, nil
}

func (d door) post(ctx context.Context, authorization, path string, v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fault.Newf(fault.Internal, "encode: %w", err)
	}
	return d.call(ctx, authorization, http.MethodPost, path, raw)
}

func (d door) call(ctx context.Context, authorization, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, err)
	}
	req.RequestURI, req.RemoteAddr = req.URL.RequestURI(), callerAddr(ctx)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	w := &answer{header: http.Header{}}
	d.ServeHTTP(w, req)
	if w.status < 300 {
		return w.body.Bytes(), nil
	}
	code, text := w.refusal()
	return nil, &refusal{w.status, code, text}
}

// answer keeps what a handler writes.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// refusal reads either form of error body: its code and its detail.
func (a *answer) refusal() (fault.Code, string) {
	var e struct {
		Detail string `json:"detail"`
		Code   string `json:"code"`
		Ticket string `json:"ticket"`
	}
	if json.Unmarshal(a.body.Bytes(), &e) != nil || e.Code == "" {
		return "", "status " + strconv.Itoa(a.status)
	}
	code := fault.Code(e.Code)
	if !code.Known() {
		code = ""
	}
	switch {
	case e.Detail != "":
		return code, e.Detail
	case e.Ticket != "":
		return code, e.Code + " (ticket " + e.Ticket + ")"
	default:
		return code, e.Code
	}
}
