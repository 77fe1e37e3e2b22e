package broker

import (
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
)

// front sends each request to its tenant.
func (b *Broker) front() *server.Front {
	return server.NewFront(b.tenants, tenant.Default, server.New(b.home.deps))
}

// Admin is what the administrators' listener serves, of all tenants, for who
// has a listener of their own.
func (b *Broker) Admin() http.Handler { return b.front().Admin() }
