package broker

import (
	"context"
	"crypto/x509"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/asapi"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
)

// callers says who is an administrator among the callers of a service that
// bring no token: those whose certificate has a configured name, and, where
// the field's openness is asked for, everybody. They can do no more than what
// the service offers, as everything that comes through its door is one of its
// calls.
type callers struct {
	server.Admins
	listener string // where they come from, as entries name it
	names    []string
	open     bool
}

// adminsOf returns the administrators of a listener.
func (b *Broker) adminsOf(name string, c config.ServiceListener) server.Admins {
	if len(c.AdminNames) == 0 && !c.InsecureOpenChanges {
		return b.home.deps.Admins
	}
	return callers{Admins: b.home.deps.Admins, listener: name, names: c.AdminNames, open: c.InsecureOpenChanges}
}

// Authenticate implements server.Admins. A token that came along decides.
func (c callers) Authenticate(ctx context.Context, authorization string) (admin.Identity, error) {
	if authorization == "" {
		if name := c.named(asapi.Peer(ctx)); name != "" {
			return admin.Identity{Issuer: c.listener, Subject: name}, nil
		}
		if c.open {
			return admin.Identity{Issuer: c.listener, Subject: "anybody"}, nil
		}
	}
	return c.Admins.Authenticate(ctx, authorization)
}

// named returns the name of a certificate that is an administrator's, "" if
// none is.
func (c callers) named(cert *x509.Certificate) string {
	if cert == nil {
		return ""
	}
	names := slices.Concat(cert.DNSNames, cert.EmailAddresses, []string{cert.Subject.CommonName})
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	for _, n := range names {
		if n != "" && slices.Contains(c.names, n) {
			return n
		}
	}
	return ""
}

// ours tells the identities made here from those of tokens, whose issuers are
// never named like a listener.
func (c callers) ours(who admin.Identity) bool { return who.Issuer == c.listener && who.TokenID == "" }

// Permits implements server.Admins.
func (c callers) Permits(who admin.Identity, call admin.Call) bool {
	return c.ours(who) || c.Admins.Permits(who, call)
}

// Concerns implements server.Admins.
func (c callers) Concerns(who admin.Identity, tenant string) bool {
	return c.ours(who) || c.Admins.Concerns(who, tenant)
}
