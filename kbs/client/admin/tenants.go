package admin

import (
	"context"
	"net/http"
	"net/url"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Tenants lists those who share the broker.
func (c *Client) Tenants(ctx context.Context) ([]api.Tenant, error) {
	var out items[api.Tenant]
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathTenants}, nil, &out)
	return out.Items, err
}

// Tenant returns one, with what it uses; the fault is NotFound if absent.
func (c *Client) Tenant(ctx context.Context, name string) (api.Tenant, error) {
	var out api.Tenant
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathTenants, segments: []string{name}}, nil, &out)
	return out, err
}

// PutTenant writes t if the stored tenant is at t.Version; 0 and -1 as for
// policies. It returns the tenant as stored.
func (c *Client) PutTenant(ctx context.Context, t api.Tenant) (api.Tenant, error) {
	var out api.Tenant
	err := c.doJSON(ctx, call{method: http.MethodPut, root: api.PathTenants, segments: []string{t.Name}}, t, &out)
	return out, err
}

// DeleteTenant destroys a suspended tenant with all its records, if it is at
// this version. The fault is Conflict if it is not suspended.
func (c *Client) DeleteTenant(ctx context.Context, name string, version int64) error {
	return c.doJSON(ctx, call{
		method: http.MethodDelete, root: api.PathTenants, segments: []string{name}, query: url.Values{"confirm": {name}},
		header: ifMatch(version),
	}, nil, nil)
}

// WhoAmI returns what the broker makes of the credential.
func (c *Client) WhoAmI(ctx context.Context) (api.WhoAmI, error) {
	var out api.WhoAmI
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathWhoAmI}, nil, &out)
	return out, err
}

// Revoke ends admin tokens; see [api.RevocationRequest].
func (c *Client) Revoke(ctx context.Context, r api.RevocationRequest) (api.Revocation, error) {
	var out api.Revocation
	err := c.doJSON(ctx, call{method: http.MethodPost, root: api.PathRevocations}, r, &out)
	return out, err
}

// RevokeGuest cuts guests off; see [api.GuestRevocation].
func (c *Client) RevokeGuest(ctx context.Context, r api.GuestRevocation) (api.GuestRevocation, error) {
	var out api.GuestRevocation
	err := c.doJSON(ctx, call{method: http.MethodPost, root: api.PathGuestRevocations}, r, &out)
	return out, err
}

// GuestRevocations lists which guests are cut off.
func (c *Client) GuestRevocations(ctx context.Context) ([]api.GuestRevocation, error) {
	var out items[api.GuestRevocation]
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathGuestRevocations}, nil, &out)
	return out.Items, err
}

// ReinstateGuest takes such a revocation back.
func (c *Client) ReinstateGuest(ctx context.Context, id string) error {
	return c.remove(ctx, api.PathGuestRevocations, []string{id}, AnyVersion)
}

// Revocations lists the admin tokens that were revoked.
func (c *Client) Revocations(ctx context.Context) ([]api.Revocation, error) {
	var out items[api.Revocation]
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathRevocations}, nil, &out)
	return out.Items, err
}
