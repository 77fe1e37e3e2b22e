package admin

import (
	"context"
	"net/http"
	"net/url"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// LeaseQuery selects leases; zero members select all.
type LeaseQuery struct {
	Object, Guest, Claim string
	State                api.LeaseState
}

// Leases lists what was given to whom, all pages; at most limit of them unless
// it is 0.
func (c *Client) Leases(ctx context.Context, q LeaseQuery, limit int) ([]api.Lease, error) {
	in := url.Values{}
	for name, value := range map[string]string{"object": q.Object, "guest": q.Guest, "claim": q.Claim, "state": string(q.State)} {
		if value != "" {
			in.Set(name, value)
		}
	}
	var all []api.Lease
	for {
		var page api.LeasePage
		if err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathLeases, query: in}, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if limit > 0 && len(all) >= limit {
			return all[:limit], nil
		}
		if page.Next == "" {
			return all, nil
		}
		if page.Next <= in.Get("after") {
			return nil, fault.Newf(fault.Internal, "the list of leases goes back to %.64q", page.Next)
		}
		in.Set("after", page.Next)
	}
}

// Lease reads a lease.
func (c *Client) Lease(ctx context.Context, id string) (api.Lease, error) {
	var out api.Lease
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathLeases, segments: []string{id}}, nil, &out)
	return out, err
}
