package fault

import "net/http"

// Code is a stable, public name for one kind of refusal. Scripts, dashboards
// and alert rules rely on these words; they are never renamed.
type Code string

// The codes. [Table] gives each its meaning, HTTP status and exit code.
const (
	Internal           Code = "internal"
	InvalidRequest     Code = "invalid_request"
	TooLarge           Code = "too_large"
	TooMany            Code = "too_many_requests"
	QuotaExceeded      Code = "quota_exceeded"
	ApprovalPending    Code = "approval_pending"
	NotFound           Code = "not_found"
	MethodNotAllowed   Code = "method_not_allowed"
	Conflict           Code = "conflict"
	Unauthenticated    Code = "unauthenticated"
	Forbidden          Code = "forbidden"
	Unavailable        Code = "unavailable"
	VersionUnsupported Code = "protocol_version_unsupported"
	SelectorUnknown    Code = "attestation_policy_unknown"
	SessionInvalid     Code = "session_invalid"
	NonceMismatch      Code = "nonce_mismatch"
	TokenInvalid       Code = "token_invalid"
	EvidenceInvalid    Code = "evidence_invalid"
	RootUntrusted      Code = "root_untrusted"
	BindingMismatch    Code = "binding_mismatch"
	InitDataMismatch   Code = "init_data_mismatch"
	PlatformDisabled   Code = "platform_not_enabled"
	PolicyDenied       Code = "policy_denied"
	PolicyError        Code = "policy_error"
	StageRequired      Code = "policy_stage_required"
	NewlyAllowed       Code = "policy_newly_allows"
	Unsupported        Code = "unsupported"
	ResourceHeld       Code = "resource_held"
	ResourceExpired    Code = "resource_expired"
	ImageBinding       Code = "image_binding_mismatch"
	GuestRevoked       Code = "guest_revoked"
	SignatureRejected  Code = "signature_rejected"
	AuditDamaged       Code = "audit_damaged"
	ImageUnsigned      Code = "image_signature_rejected"
	ImagePolicyMissing Code = "image_policy_missing"
	ImageCorrupt       Code = "image_layer_corrupt"
	ImageKey           Code = "image_key_refused"
	ImageMalformed     Code = "image_malformed"
	ImageUnavailable   Code = "image_unavailable"
	ImageBlocked       Code = "image_registry_blocked"
	SealedInvalid      Code = "sealed_secret_invalid"
	VolumeRefused      Code = "volume_refused"
	VolumeNotEmpty     Code = "volume_not_empty"
	VolumeBusy         Code = "volume_busy"
	DriverMissing      Code = "driver_missing"
)

// Entry is one row of the code table.
type Entry struct {
	Code    Code
	Status  int    // HTTP status that carries it
	Exit    int    // exit code of the commands
	Meaning string // one sentence for the reference page; says nothing secret
}

// Exit codes of every command of the project; [ExitOf] tells that of an error.
const (
	ExitOK          = 0
	ExitUsage       = 1
	ExitRefused     = 2
	ExitEvidence    = 3
	ExitNotFound    = 4
	ExitConflict    = 5
	ExitUnavailable = 6
	ExitDifferent   = 7
)

// Table lists every code once, in the order of the reference page.
func Table() []Entry {
	return []Entry{
		{Internal, http.StatusInternalServerError, ExitUnavailable, "Something broke on the answering side."},
		{InvalidRequest, http.StatusBadRequest, ExitUsage, "The request is malformed."},
		{TooLarge, http.StatusRequestEntityTooLarge, ExitUsage, "The request is larger than allowed."},
		{TooMany, http.StatusTooManyRequests, ExitUnavailable, "The caller asks too often."},
		{QuotaExceeded, http.StatusTooManyRequests, ExitRefused, "The tenant has used up one of its quotas."},
		{ApprovalPending, http.StatusAccepted, ExitDifferent, "The change waits for a second person, and is not made yet."},
		{NotFound, http.StatusNotFound, ExitNotFound, "There is no such object."},
		{MethodNotAllowed, http.StatusMethodNotAllowed, ExitUsage, "The address has no such method."},
		{Conflict, http.StatusConflict, ExitConflict, "The object changed since it was read."},
		{Unauthenticated, http.StatusUnauthorized, ExitRefused, "No valid credential came with the request."},
		{Forbidden, http.StatusForbidden, ExitRefused, "The caller's role does not allow this."},
		{Unavailable, http.StatusServiceUnavailable, ExitUnavailable, "A service that is needed cannot be reached."},
		{VersionUnsupported, http.StatusUnauthorized, ExitUsage, "The guest speaks another protocol version."},
		{SelectorUnknown, http.StatusForbidden, ExitUsage, "The guest asks for an attestation policy that is not offered here."},
		{SessionInvalid, http.StatusUnauthorized, ExitRefused, "The attestation session is unknown or has expired."},
		{NonceMismatch, http.StatusUnauthorized, ExitEvidence, "The evidence answers another challenge than the one given."},
		{TokenInvalid, http.StatusUnauthorized, ExitRefused, "The attestation token is missing, expired or forged."},
		{EvidenceInvalid, http.StatusUnauthorized, ExitEvidence, "The hardware evidence failed verification."},
		{RootUntrusted, http.StatusUnauthorized, ExitEvidence, "The evidence ends in a root that the broker does not trust."},
		{BindingMismatch, http.StatusUnauthorized, ExitEvidence, "The evidence is not bound to this challenge and key."},
		{InitDataMismatch, http.StatusUnauthorized, ExitEvidence, "The evidence is not bound to the init-data presented."},
		{PlatformDisabled, http.StatusUnauthorized, ExitRefused, "This kind of platform is not enabled here."},
		{PolicyDenied, http.StatusForbidden, ExitRefused, "A policy denied it."},
		{PolicyError, http.StatusInternalServerError, ExitUnavailable, "A policy could not be evaluated, so nothing was released."},
		{StageRequired, http.StatusConflict, ExitRefused, "Policies must pass the stages here, and this one has not."},
		{NewlyAllowed, http.StatusConflict, ExitRefused, "The policy would allow what is recorded as refused, and nobody said that this is wanted."},
		{Unsupported, http.StatusNotImplemented, ExitUsage, "What holds the object cannot do this."},
		{GuestRevoked, http.StatusForbidden, ExitRefused, "An administrator revoked the guest: it gets nothing any more."},
		{ResourceHeld, http.StatusForbidden, ExitRefused, "An administrator holds the resource back for now."},
		{ResourceExpired, http.StatusForbidden, ExitRefused, "The resource has expired."},
		{ImageBinding, http.StatusForbidden, ExitRefused, "The key is for another image than the guest named."},
		{SignatureRejected, http.StatusForbidden, ExitEvidence, "No signer that is trusted here vouches for the document."},
		{AuditDamaged, http.StatusInternalServerError, ExitEvidence, "The audit log in the store is not the one that the broker wrote."},
		{ImageUnsigned, http.StatusForbidden, ExitRefused, "No signature on the image satisfies the image policy."},
		{ImagePolicyMissing, http.StatusForbidden, ExitRefused, "No image policy is in force, so no image may run."},
		{ImageCorrupt, http.StatusForbidden, ExitEvidence, "A layer's bytes do not match its digest, HMAC or diffID."},
		{ImageKey, http.StatusForbidden, ExitRefused, "The key of a layer could not be obtained."},
		{ImageMalformed, http.StatusForbidden, ExitUsage, "The image or an archive in it is not well formed."},
		{ImageUnavailable, http.StatusServiceUnavailable, ExitUnavailable, "The registry could not deliver the image."},
		{ImageBlocked, http.StatusForbidden, ExitRefused, "The configuration of registries blocks the image's name, so nobody was asked for it."},
		{SealedInvalid, http.StatusForbidden, ExitEvidence, "The sealed secret is malformed, or nobody signed it whose key the guest knows."},
		{VolumeRefused, http.StatusForbidden, ExitEvidence, "The volume is weaker than is accepted, was altered, or belongs to another key."},
		{VolumeNotEmpty, http.StatusConflict, ExitConflict, "There is something on the device, so it is not formatted."},
		{VolumeBusy, http.StatusConflict, ExitConflict, "The device or the mount point is in use."},
		{DriverMissing, http.StatusNotImplemented, ExitUnavailable, "The guest's kernel lacks a driver that this needs: its image has to bring it."},
	}
}

func (c Code) entry() Entry {
	for _, e := range Table() {
		if e.Code == c {
			return e
		}
	}
	return Entry{Code: c, Status: http.StatusInternalServerError, Exit: ExitUnavailable}
}

// Status returns the HTTP status that carries c; 500 for an unknown code.
func (c Code) Status() int { return c.entry().Status }

// OfStatus returns the code for an HTTP status whose body named none: an answer
// of another implementation, or of something in between. It is never a code
// that says more than the status does.
func OfStatus(status int) Code {
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
		return InvalidRequest
	case http.StatusUnauthorized:
		return Unauthenticated
	case http.StatusForbidden:
		return Forbidden
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return NotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return Conflict
	case http.StatusRequestEntityTooLarge:
		return TooLarge
	case http.StatusTooManyRequests:
		return TooMany
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return Unavailable
	}
	if status >= 300 && status < 400 {
		return Unavailable // what was asked for is not where the configuration says
	}
	return Internal
}

// Exit returns the exit code of a command that fails with c.
func (c Code) Exit() int { return c.entry().Exit }

// Known reports whether c is in the table. Codes read from the wire are
// foreign until this says yes.
func (c Code) Known() bool { return c.entry().Meaning != "" }
