package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/approval"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/refvalue"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/revocation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/ticket"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault"
)

// handler is how every endpoint is written.
type handler func(w http.ResponseWriter, r *http.Request) error

// operation groups the endpoints of /kbs/v0 whose errors have the same form,
// and is the stage that tickets show.
type operation string

const (
	opAuth    operation = "auth"
	opAttest  operation = "attest"
	opRelease operation = "release"
	opGuest   operation = "guest"
	opAdmin   operation = "admin"
)

// Causes that the v0 adapter tells apart, because the field's protocol does.
var (
	errNoToken   = errors.New("neither a session cookie nor a bearer token came with the request")
	errSeal      = errors.New("the resource cannot be encrypted to the guest's key")
	errSetPolicy = errors.New("the attestation policy was not set")
)

// known gives the errors of the rooms behind the server their codes.
func known(err error) *fault.Fault {
	var (
		syntax *policy.SyntaxError
		large  *http.MaxBytesError
	)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, tenant.ErrUnknown), errors.Is(err, audit.ErrArchived):
		return fault.New(fault.NotFound, err)
	case errors.Is(err, audit.ErrTampered):
		return fault.New(fault.AuditDamaged, err)
	case errors.Is(err, store.ErrConflict), errors.Is(err, resource.ErrCurrent):
		return fault.New(fault.Conflict, err)
	case errors.Is(err, approval.ErrState):
		return fault.New(fault.Conflict, err)
	case errors.Is(err, approval.ErrOwn):
		return fault.New(fault.Forbidden, err)
	case errors.Is(err, approval.ErrFull):
		return fault.New(fault.QuotaExceeded, err)
	case errors.Is(err, tenant.ErrQuota):
		return fault.New(fault.QuotaExceeded, err)
	case errors.Is(err, resource.ErrPath), errors.Is(err, resource.ErrMeta), errors.Is(err, ticket.ErrSilence), errors.Is(err, revocation.ErrRevocation), errors.Is(err, policy.ErrName), errors.Is(err, policy.ErrRequest), errors.As(err, &syntax),
		errors.Is(err, refvalue.ErrName), errors.Is(err, refvalue.ErrValue), errors.Is(err, refvalue.ErrMessage), errors.Is(err, refvalue.ErrSigner),
		errors.Is(err, refvalue.ErrMessageType), errors.Is(err, audit.ErrRange), errors.Is(err, store.ErrKey),
		errors.Is(err, tenant.ErrName), errors.Is(err, tenant.ErrRecord), errors.Is(err, admin.ErrRevocation),
		errors.Is(err, approval.ErrReason):
		return fault.New(fault.InvalidRequest, err)
	case errors.As(err, &large), errors.Is(err, resource.ErrTooLarge), errors.Is(err, store.ErrTooLarge):
		return fault.New(fault.TooLarge, err)
	case errors.Is(err, resource.ErrUnsupported), errors.Is(err, resource.ErrReadOnly):
		return fault.New(fault.Unsupported, err)
	case errors.Is(err, vault.ErrUnavailable), errors.Is(err, kek.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.Unavailable, err)
	}
	return fault.New(fault.Internal, err)
}

// settle makes the fault that is answered. A failure of ours that nobody has
// recorded yet gets a ticket here; if that fails too, the log has the cause.
func (s *Server) settle(ctx context.Context, op operation, err error) *fault.Fault {
	f := known(err)
	if shed := (*limit.Error)(nil); errors.As(f, &shed) {
		return f // nothing is wrong with us, and the store is what it protects
	}
	if f.Ticket != "" || f.Code.Status() < http.StatusInternalServerError && f.Code != fault.QuotaExceeded {
		return f
	}
	t, rerr := s.Tickets.Record(context.WithoutCancel(ctx), api.Explanation{
		Code: string(f.Code), Stage: string(op), Cause: causeText(f),
	}, api.AuditEntry{Kind: api.AuditKind(op), Decision: "error"})
	if rerr != nil {
		t = fault.NewTicket()
	}
	f = f.With(t)
	s.Logger.ErrorContext(ctx, "request failed",
		slog.Any("fault", f), slog.String("cause", causeText(f)), slog.Bool("recorded", rerr == nil))
	return f
}

func causeText(f *fault.Fault) string {
	if f.Cause() == nil {
		return ""
	}
	return f.Cause().Error()
}

// v0 adapts a handler to the errors of the field's protocol (kbs-protocol
// 2.4): 401 only where attesting again helps.
func (s *Server) v0(op operation, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			return
		}
		f := s.settle(r.Context(), op, err)
		variant, detail := v0Error(r, op, f)
		noted(w, f)
		if f.Code == fault.MethodNotAllowed {
			w.Header().Set("Allow", strings.Join(fieldMethods, ", "))
		}
		s.answerJSON(w, s.v0Status(variant, f.Code), "application/json", api.ErrorInformation{
			Type:   api.ErrorTypePrefix + variant,
			Detail: detail + ": " + f.Public(),
			Code:   string(f.Code),
			Ticket: string(f.Ticket),
		})
	})
}

// v0Status is the status of a refusal: that of its code, or the one which the
// field's broker gives to all but two kinds of refusal (kbs-protocol 2.4). What
// it has no refusal for keeps its own.
func (s *Server) v0Status(variant string, code fault.Code) int {
	switch {
	case !s.Compat401:
		return code.Status()
	case variant == variantPath && code != fault.MethodNotAllowed, variant == variantPlugin:
		return http.StatusNotFound
	}
	switch code {
	case fault.TooLarge, fault.TooMany, fault.MethodNotAllowed, fault.Unavailable:
		return code.Status()
	default:
		return http.StatusUnauthorized
	}
}

// The variants that the field answers with 404.
const (
	variantPath   = "InvalidRequestPath"
	variantPlugin = "PluginNotFound"
)

// v0Error returns the variant and the fixed text of an error.
func v0Error(r *http.Request, op operation, f *fault.Fault) (variant, detail string) {
	var (
		version attestation.ErrVersion
		syntax  *policy.SyntaxError
		denied  *adminError
		plugin  *pluginError
		value   *valueError
	)
	switch {
	case errors.As(f, &version):
		return "AttestationError", "Attestation error: RCAR handshake Auth failed: " + version.Error()
	case op == opAuth:
		return "AttestationError", "Attestation error: RCAR handshake Auth failed"
	case op == opAttest:
		return "AttestationError", "Attestation error: RCAR handshake Attest failed"
	case errors.As(f, &denied):
		return "AdminAuthAccess", adminAccess(r, denied)
	case errors.As(f, &syntax) && errors.Is(f, errSetPolicy):
		return "AttestationError", "Attestation error: Set Attestation Policy failed: " + syntax.Error()
	case errors.As(f, &syntax):
		return "ParsePolicyError", "Failed to parse policy: " + syntax.Error()
	case errors.As(f, &plugin):
		return variantPlugin, plugin.Error()
	case errors.As(f, &value):
		return "RvpsError", "RVPS configuration failed: " + value.Error()
	case errors.Is(f, errMethod):
		return variantPath, "Request method is not allowed"
	case errors.Is(f, resource.ErrPath):
		return variantPath, "Request path is invalid"
	case errors.Is(f, errNoToken):
		return "TokenNotFound", "Attestation Token not found"
	case errors.Is(f, errSeal):
		return "JweError", "JWE failed"
	}
	switch f.Code {
	case fault.PolicyDenied, fault.GuestRevoked, fault.ResourceHeld, fault.ResourceExpired, fault.ImageBinding:
		return "PolicyDeny", "Access denied by policy"
	case fault.PolicyError:
		return "PolicyEngineError", "Policy engine error"
	case fault.TokenInvalid:
		return "TokenVerifierError", "Token Verifier error"
	case fault.InvalidRequest, fault.TooLarge:
		return "SerdeError", "Serialize/Deserialize failed"
	default:
		return "PluginInternalError", "Plugin internal error"
	}
}

const typeProblem = "application/problem+json"

// v1 adapts a handler to problem details (RFC 9457).
func (s *Server) v1(op operation, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			return
		}
		f := s.settle(r.Context(), op, err)
		if f.Code == fault.Unauthenticated || f.Code == fault.TokenInvalid {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		noted(w, f)
		s.answerJSON(w, f.Code.Status(), typeProblem, api.Problem{
			Type:   "about:blank",
			Title:  http.StatusText(f.Code.Status()),
			Status: f.Code.Status(),
			Detail: adminDetail(w, f),
			Code:   string(f.Code),
			Ticket: string(f.Ticket),
		})
	})
}

// adminDetail tells an authenticated administrator what was wrong with the
// request. Anyone else, and any failure of ours, gets nothing.
func adminDetail(w http.ResponseWriter, f *fault.Fault) string {
	if denied, ok := errors.AsType[*adminError](f); ok && f.Code == fault.Unauthenticated {
		return denied.text // says nothing but to the bearer of a genuine token
	}
	if rec, ok := w.(*recorder); !ok || !rec.admin {
		return ""
	}
	switch f.Code {
	case fault.InvalidRequest, fault.Conflict, fault.NotFound, fault.TooLarge, fault.Unsupported, fault.StageRequired, fault.NewlyAllowed, fault.SignatureRejected:
		return causeText(f)
	case fault.Forbidden:
		return fmt.Sprint(f.Cause())
	default:
		return ""
	}
}
