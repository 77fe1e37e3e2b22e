package kata

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/container"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/iptables"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/machine"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/network"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
	"github.com/vouchsafe-cc/vouchsafe/image/driver"
)

// refusal is an error of this package with the code that the host will see. Its
// text is meant for the host.
type refusal struct {
	code codes.Code
	text string
}

func (r *refusal) Error() string { return r.text }

func refusef(code codes.Code, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

func invalidf(format string, args ...any) error {
	return refusef(codes.InvalidArgument, format, args...)
}

// Texts that people and tests look for when an image is refused
// (kata-agent 1.5); the code and the ticket follow them.
var faultPrefix = map[fault.Code]string{
	fault.ImageUnsigned:      "Image policy rejected: Denied by policy: ",
	fault.ImagePolicyMissing: "Image policy rejected: Denied by policy: ",
	fault.ImageKey:           "Failed to decrypt the image layer, please ensure that the decryption key is placed and correct: ",
}

// wireError turns any error into the status that the host sees. Of a fault it
// sees the code and the ticket, never the cause.
func wireError(err error) error {
	if err == nil {
		return nil
	}
	if d, ok := errors.AsType[*denial](err); ok {
		return status.Error(codes.PermissionDenied, d.Error())
	}
	if m, ok := errors.AsType[*driver.MissingError](err); ok {
		return status.Error(faultCode(fault.DriverMissing), missing(err, m))
	}
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		return status.Error(faultCode(f.Code), faultPrefix[f.Code]+f.Public())
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		return status.Error(r.code, err.Error())
	}
	return status.Error(errorCode(err), err.Error())
}

// missing names the driver beside the code: whoever makes guest images needs no
// ticket for that.
func missing(err error, m *driver.MissingError) string {
	code := string(fault.DriverMissing)
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		code = f.Public()
	}
	return code + ": " + m.Public()
}

func errorCode(err error) codes.Code {
	var invalid *sandbox.InvalidError
	var malformed *network.InvalidError
	var change *machine.InvalidError
	var rules *iptables.InvalidError
	var address *device.InvalidError
	switch {
	case errors.Is(err, sandbox.ErrBadID), errors.As(err, &invalid), errors.As(err, &malformed), errors.As(err, &change), errors.As(err, &rules), errors.As(err, &address):
		return codes.InvalidArgument
	case errors.Is(err, network.ErrLinkNotFound), errors.Is(err, container.ErrNotFound), errors.Is(err, container.ErrNoProcess):
		return codes.NotFound
	case errors.Is(err, container.ErrExists):
		return codes.AlreadyExists
	case errors.Is(err, machine.ErrUnsupported), errors.Is(err, iptables.ErrUnsupported):
		return codes.Unimplemented
	case errors.Is(err, device.ErrTimeout):
		return codes.DeadlineExceeded
	case errors.Is(err, device.ErrBusy), errors.Is(err, container.ErrState), errors.Is(err, container.ErrStdinClosed), errors.Is(err, container.ErrNoTerminal):
		return codes.FailedPrecondition
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return codes.Internal
}

// faultCode goes by the HTTP status of the code table, so that a new code finds
// its place by itself.
func faultCode(c fault.Code) codes.Code {
	switch c.Status() {
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusUnauthorized, http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusConflict:
		return codes.Aborted
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusAccepted: // somebody else must agree first
		return codes.FailedPrecondition
	}
	return codes.Internal
}

// panicError is what the host sees of a bug; the stack stays in the guest's log.
func panicError() error { return status.Error(codes.Internal, "internal error") }

// errUnknown is NOT_FOUND, which runtime-rs takes for "has exited already".
func errUnknown(id string) error {
	return refusef(codes.NotFound, "container %q: no such container", id)
}
