package ctl

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// What can go wrong on the way to a registry has a hint of one line that names whom
// it is about. The scripts in kbs/cmd/kbsctl have those that a registry on loopback
// can bring about at once.
func TestRegistryHints(t *testing.T) {
	reach := func(cause error) error { return &url.Error{Op: "Get", URL: "https://reg.test:5000/v2/", Err: cause} }
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"no such host":       {reach(&net.OpError{Op: "dial", Err: &net.DNSError{Name: "reg.test", IsNotFound: true}}), "the name reg.test leads nowhere"},
		"nobody listens":     {reach(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}), "nothing listens at reg.test:5000"},
		"nobody, no TLS too": {errors.Join(reach(syscall.ECONNREFUSED), &registry.PlainHTTPError{Host: "reg.test:5000"}), "nothing listens at reg.test:5000"},
		"another CA":         {reach(x509.UnknownAuthorityError{}), "--registry-ca FILE"},
		"another name":       {reach(x509.HostnameError{Certificate: new(x509.Certificate), Host: "reg.test"}), "for another name than reg.test:5000"},
		"an alert":           {reach(&net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}), "reg.test:5000 may want a client certificate"},
		"no TLS":             {reach(http.ErrSchemeMismatch), "--insecure-plain-http reg.test:5000"},
		"plain HTTP":         {&registry.PlainHTTPError{Host: "reg.test:5000"}, "if reg.test:5000 has no TLS: --insecure-plain-http reg.test:5000"},
		"no answer":          {reach(os.ErrDeadlineExceeded), "reg.test:5000 does not answer"},
		"who are you":        {&registry.AnswerError{Host: "reg.test", Status: http.StatusUnauthorized}, "reg.test wants a credential"},
		"you may not":        {&registry.AnswerError{Host: "reg.test", Status: http.StatusForbidden}, "the credential for reg.test"},
		"read only":          {&registry.AnswerError{Host: "reg.test", Status: http.StatusMethodNotAllowed}, "reg.test does not take images"},
		"too large":          {&registry.AnswerError{Host: "reg.test", Status: http.StatusRequestEntityTooLarge}, "in front of reg.test"},
		"too often":          {&registry.AnswerError{Host: "reg.test", Status: http.StatusTooManyRequests}, "reg.test was asked too often"},
		"its own fault":      {&registry.AnswerError{Host: "reg.test", Status: http.StatusBadGateway}, "reg.test has a fault of its own"},
	} {
		got := hintFor(doing(fault.New(fault.ImageUnavailable, fmt.Errorf("manifest: %w", tt.err)), "inspect it"))
		if !strings.Contains(got, tt.want) || strings.ContainsAny(got, "\n") {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	// The broker's own troubles keep their hints.
	if got := hintFor(fault.New(fault.Unavailable, syscall.ECONNREFUSED)); !strings.Contains(got, "--server") {
		t.Errorf("of the broker: %q", got)
	}
	if got := hintFor(fault.New(fault.ImageKey, errors.New("no")).With("7QK2-M9TD")); got != "kbsctl explain ticket/7QK2-M9TD" {
		t.Errorf("with a ticket: %q", got)
	}
}
