package asapi

import (
	"context"
	"crypto/x509"
	"net/http"
)

type peerKey struct{}

// Peer returns the certificate that the caller of a service showed and TLS
// verified, nil if there is none. The API for administrators sees it in the
// context of what comes through the door.
func Peer(ctx context.Context) *x509.Certificate {
	c, _ := ctx.Value(peerKey{}).(*x509.Certificate)
	return c
}

// withPeer notes it.
func withPeer(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
			r = r.WithContext(context.WithValue(r.Context(), peerKey{}, r.TLS.VerifiedChains[0][0]))
		}
		h.ServeHTTP(w, r)
	})
}
