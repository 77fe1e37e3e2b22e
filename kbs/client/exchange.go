package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A request is one HTTP exchange with the broker.
type request struct {
	method string
	path   string // with query
	body   []byte // JSON, or nil
	cookie *http.Cookie
	bearer secret.Bytes
}

// An answer is the response with its whole body, which is at most maxAnswer
// bytes long.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send makes one exchange. Its error is a *fault.Fault: unavailable if no
// whole answer arrived, internal if the answer is too long. Statuses are for
// the caller to judge.
func (c *Client) send(ctx context.Context, r request) (answer, error) {
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+r.path, body)
	if err != nil {
		return answer{}, fault.New(fault.Internal, err)
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "application/json")
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.cookie != nil {
		req.AddCookie(r.cookie)
	}
	if r.bearer.Len() > 0 {
		req.Header.Set("Authorization", "Bearer "+string(r.bearer.Reveal()))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, fault.New(fault.Unavailable, fmt.Errorf("ask the broker: %w", err))
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return answer{}, fault.New(fault.Unavailable, fmt.Errorf("read the broker's answer: %w", err))
	}
	if len(text) > maxAnswer {
		return answer{}, badAnswer(fmt.Errorf("more than %d bytes", maxAnswer))
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: text}, nil
}

// transient reports whether an exchange that failed may succeed if tried
// again: not if the caller gave up, nor if the broker's certificate is wrong.
func transient(ctx context.Context, err error) bool {
	if _, wrong := errors.AsType[*tls.CertificateVerificationError](err); wrong {
		return false
	}
	return ctx.Err() == nil && fault.CodeOf(err) == fault.Unavailable
}

// badAnswer is the fault for an answer that the protocol does not have.
func badAnswer(err error) *fault.Fault {
	return fault.New(fault.Internal, fmt.Errorf("the broker's answer is malformed: %w", err))
}

// versionMismatch is the text by which the field recognises this refusal
// (kbs-protocol 3.1).
const versionMismatch = "KBS Client Protocol Version Mismatch"

// refusal turns an answer that is not a success into a fault. A known code
// and a well-formed ticket of the broker become public; its words do not.
func refusal(a answer) *fault.Fault {
	var info api.ErrorInformation // api.Problem has the same members
	err := json.Unmarshal(a.body, &info)
	if err != nil {
		info = api.ErrorInformation{}
	}
	f := fault.Newf(refusalCode(a.status, info), "the broker answered %d: type %q, detail %q",
		a.status, clip(info.Type, 128), clip(info.Detail, 512))
	if t, err := fault.ParseTicket(info.Ticket); err == nil {
		f = f.With(t)
	}
	return f
}

// refusalCode prefers the broker's own code; brokers that have none name a
// type (kbs-protocol 2.4), and at last there is the status.
func refusalCode(status int, info api.ErrorInformation) fault.Code {
	if code := fault.Code(info.Code); code.Known() {
		return code
	}
	if variant, ok := strings.CutPrefix(info.Type, api.ErrorTypePrefix); ok {
		switch variant {
		case "PolicyDeny":
			return fault.PolicyDenied
		case "PolicyEngineError", "ParsePolicyError":
			return fault.PolicyError
		case "TokenNotFound", "TokenVerifierError":
			return fault.TokenInvalid
		case "PluginNotFound", "InvalidRequestPath":
			return fault.NotFound
		case "PluginInternalError", "JweError", "SerdeError", "RvpsError":
			return fault.Internal
		case "AttestationError":
			if strings.Contains(info.Detail, versionMismatch) {
				return fault.VersionUnsupported
			}
			return fault.EvidenceInvalid
		}
	}
	return fault.OfStatus(status)
}

// clip shortens foreign text to at most n bytes, at a character border.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
