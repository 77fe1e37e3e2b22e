package ctl

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

// failure is an error with the exit code it leads to and, where there is one,
// a hint at the way out.
type failure struct {
	err  error
	exit int
	way  string
	told bool // somebody else has printed it
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// hint returns the failure with a hint.
func (f *failure) hint(format string, args ...any) *failure {
	f.way = fmt.Sprintf(format, args...)
	return f
}

// usagef is a mistake in the command line or in a file that the user wrote.
func usagef(format string, args ...any) *failure {
	return &failure{err: fmt.Errorf(format, args...), exit: fault.ExitUsage}
}

// invalidf is evidence, a proof or a signature that does not hold.
func invalidf(format string, args ...any) *failure {
	return &failure{err: fmt.Errorf(format, args...), exit: fault.ExitEvidence}
}

// errDifferent is the result of a comparison, not a failure: it sets the exit
// code and prints nothing.
var errDifferent = &failure{err: errors.New("there are differences"), exit: fault.ExitDifferent}

// errTestsFailed is likewise what was asked for.
var errTestsFailed = &failure{err: errors.New("tests failed"), exit: fault.ExitRefused}

// report prints err for a person and returns the exit code:
//
//	kbsctl: apply policy/resource/default: conflict (ticket 7QK2-M9TD)
//	  the private reason, which an administrator may see
//	  hint  what to do next
func (c *cli) report(err error) int {
	if errors.Is(err, errDifferent) || errors.Is(err, errTestsFailed) || errors.Is(err, errNotReady) {
		return exitCode(err)
	}
	if f, ok := errors.AsType[*failure](err); !ok || !f.told {
		_, _ = io.WriteString(c.stdio.Err, renderError(c.endedToken(err)))
	}
	return exitCode(err)
}

func renderError(err error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "kbsctl: %s\n", indentRest(clean(err.Error())))
	if f, ok := errors.AsType[*fault.Fault](err); ok && f.Cause() != nil {
		for line := range strings.Lines(clean(f.Cause().Error())) {
			fmt.Fprintf(&b, "  %s\n", strings.TrimRight(line, "\n"))
		}
	}
	if h := hintFor(err); h != "" {
		fmt.Fprintf(&b, "  hint  %s\n", clean(h))
	}
	return b.String()
}

func indentRest(s string) string { return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ") }

// exitCode is that of the command. A file that is missing is a mistake in the
// command line here: what is not found is an object of the broker's.
func exitCode(err error) int {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.exit
	}
	_, isFault := errors.AsType[*fault.Fault](err)
	if !isFault && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)) {
		return fault.ExitUsage
	}
	return fault.ExitOf(err)
}

func hintFor(err error) string {
	if f, ok := errors.AsType[*failure](err); ok && f.way != "" {
		return f.way
	}
	if errors.Is(err, admin.ErrTokenExposed) {
		return "chmod 600 the file, or get a new token: this one may have been read"
	}
	f, ok := errors.AsType[*fault.Fault](err)
	if ok && f.Ticket != "" && f.Code != fault.Unauthenticated { // who has no token cannot open it
		return "kbsctl explain ticket/" + string(f.Ticket)
	}
	if h := imageHint(err); h != "" {
		return h
	}
	if !ok {
		return ""
	}
	switch f.Code {
	case fault.Unavailable:
		return unavailableHint(f.Cause())
	case fault.Unauthenticated:
		return "the broker does not accept this token; log in again (kbsctl login), or check --token-file and the context"
	case fault.ApprovalPending:
		if p, ok := errors.AsType[*admin.Pending](err); ok {
			return "another administrator decides: kbsctl approve approval/" + p.ID
		}
		return ""
	case fault.InvalidRequest:
		if strings.Contains(err.Error()+fmt.Sprint(f.Cause()), "the broker answered HTTP status 400") {
			return "if the broker speaks TLS, --server begins with https://"
		}
		return ""
	case fault.Forbidden:
		return "this credential's role does not allow it"
	case fault.Conflict:
		return "it changed since it was read, or it exists already; look at it with kbsctl get or diff"
	default:
		return ""
	}
}

// missing adds a hint to a broker's answer that something is not there.
func missing(err error, format string, args ...any) error {
	if fault.CodeOf(err) != fault.NotFound {
		return err
	}
	return (&failure{err: err, exit: fault.ExitNotFound}).hint(format, args...)
}

func unavailableHint(cause error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](cause); ok {
		return "name the broker's CA with --ca FILE or KBS_CA; kbs serve writes it to tls/cert.pem in its state directory"
	}
	if _, ok := errors.AsType[x509.HostnameError](cause); ok {
		return "the certificate is for another name than --server says"
	}
	_, noName := errors.AsType[*net.DNSError](cause)
	if noName || errors.Is(cause, syscall.ECONNREFUSED) {
		return "is the broker running there? choose another with --server, --context or KBS_SERVER"
	}
	return ""
}
