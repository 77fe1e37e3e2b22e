package ctl

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
)

// imageHint says what to do about an error of the image commands; empty: there is
// nothing to say that the error does not.
func imageHint(err error) string {
	switch {
	case errors.Is(err, ship.ErrEncrypted):
		return "who can open it changes with kbsctl image rekey"
	case errors.Is(err, ship.ErrPlain):
		return "kbsctl image encrypt encrypts it"
	case errors.Is(err, crypt.ErrNoKey):
		return "kbsctl image inspect shows who can open it; --with-key FILE or --with-kek URI=FILE names their key"
	case errors.Is(err, registry.ErrBlocked):
		return "the registries.conf that was named forbids it; only there it can be allowed"
	}
	if a, ok := errors.AsType[*registry.AnswerError](err); ok && errors.Is(err, registry.ErrNotFound) {
		return "is the name right, with its registry, and the tag? " + a.Host + " may also say this of what the credential does not let one see: --authfile FILE"
	}
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		switch f.Code {
		case fault.NotFound:
			if path, ok := errors.AsType[*fs.PathError](err); ok && filepath.Base(path.Path) == "oci-layout" {
				return "oci:DIR[:TAG] names a directory with an OCI layout, which for example podman push NAME oci:DIR:TAG makes"
			}
		case fault.ImageUnavailable:
			return registryHint(err)
		case fault.ImageUnsigned:
			return "kbsctl image sign REF --key FILE adds a signature by a key that the policy names; kbsctl image inspect shows those that are there"
		case fault.ImageKey:
			return "kbsctl image inspect shows who can open it; --with-key FILE or --with-kek URI=FILE opens it here, and with neither oci:DIR takes it as it is"
		case fault.ImageCorrupt:
			return "the registry, a mirror or somebody on the way changed it: pull from elsewhere, or push it again"
		default:
		}
	}
	return ""
}

// registryHint is about registries that cannot be reached, or do not want to answer.
func registryHint(err error) string {
	if a, ok := errors.AsType[*registry.AnswerError](err); ok {
		return answerHint(a)
	}
	host := "HOST"
	if u, ok := errors.AsType[*url.Error](err); ok {
		if parsed, perr := url.Parse(u.URL); perr == nil && parsed.Host != "" {
			host = parsed.Host
		}
	}
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, wrongName := errors.AsType[x509.HostnameError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	dns, noName := errors.AsType[*net.DNSError](err)
	plain, isPlain := errors.AsType[*registry.PlainHTTPError](err)
	switch {
	case noName:
		return "the name " + dns.Name + " leads nowhere: is it right? A name without a registry is one at docker.io"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at " + host + ": is name and port right? Through a proxy: HTTPS_PROXY"
	case unknown:
		return "name the CA of " + host + ": --registry-ca FILE, or --certs-dir DIR with " + host + "/ca.crt in it"
	case wrongName:
		return "the certificate is for another name than " + host + ": use the name that it is for"
	case isOp && op.Op == "remote error": // an alert of TLS
		return host + " may want a client certificate: --certs-dir DIR with " + host + "/client.cert and client.key in it"
	case errors.Is(err, http.ErrSchemeMismatch):
		return host + " speaks plain HTTP: --insecure-plain-http " + host + ", where nobody can be on the way"
	case isPlain:
		return "if " + plain.Host + " has no TLS: --insecure-plain-http " + plain.Host + ", where nobody can be on the way"
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return host + " does not answer: is the name right, and is there a proxy on the way (HTTPS_PROXY)?"
	}
	return ""
}

func answerHint(a *registry.AnswerError) string {
	switch {
	case a.Status == http.StatusUnauthorized:
		return a.Host + " wants a credential, or does not take the one that it got, which may have expired: podman login or docker login, or --authfile FILE"
	case a.Status == http.StatusForbidden:
		return "the credential for " + a.Host + " does not allow that: one that may is named with --authfile FILE"
	case a.Status == http.StatusMethodNotAllowed:
		return a.Host + " does not take images: is the name right, or is it a mirror that can be read only?"
	case a.Status == http.StatusRequestEntityTooLarge:
		return "something in front of " + a.Host + " takes no layers as large as this one: its limit for requests has to be raised"
	case a.Status == http.StatusTooManyRequests:
		return a.Host + " was asked too often: wait, or log in, which most registries allow more"
	case a.Status >= http.StatusInternalServerError:
		return a.Host + " has a fault of its own: try again later, or ask whoever runs it"
	}
	return ""
}
