package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// items is the envelope of every list.
type items[T any] struct {
	Items []T `json:"items"`
}

// RefValues lists the reference values.
func (c *Client) RefValues(ctx context.Context) ([]api.RefValue, error) {
	var out items[api.RefValue]
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathRefValues}, nil, &out)
	return out.Items, err
}

// RefValue returns one reference value; the fault is NotFound if absent.
func (c *Client) RefValue(ctx context.Context, name string) (api.RefValue, error) {
	var out api.RefValue
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathRefValues, segments: strings.Split(name, "/")}, nil, &out)
	return out, err
}

// PutRefValue writes v if the stored value is at v.Version; 0 and -1 as for
// policies. It returns the value as stored.
func (c *Client) PutRefValue(ctx context.Context, v api.RefValue) (api.RefValue, error) {
	var out api.RefValue
	err := c.doJSON(ctx, call{method: http.MethodPut, root: api.PathRefValues, segments: strings.Split(v.Name, "/")}, v, &out)
	return out, err
}

// DeleteRefValue removes a reference value.
func (c *Client) DeleteRefValue(ctx context.Context, name string) error {
	return c.doJSON(ctx, call{method: http.MethodDelete, root: api.PathRefValues, segments: strings.Split(name, "/")}, nil, nil)
}

// Tickets lists refusals, newest first, at most limit of them; 0 leaves the
// number to the broker.
func (c *Client) Tickets(ctx context.Context, limit int) ([]api.Explanation, error) {
	r := call{method: http.MethodGet, root: api.PathTickets}
	if limit > 0 {
		r.query = url.Values{"limit": {strconv.Itoa(limit)}}
	}
	var out items[api.Explanation]
	err := c.doJSON(ctx, r, nil, &out)
	return out.Items, err
}

// Ticket returns everything behind one refusal; the fault is NotFound for a
// ticket that this broker never gave.
func (c *Client) Ticket(ctx context.Context, t fault.Ticket) (api.Explanation, error) {
	var out api.Explanation
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathTickets, segments: []string{string(t)}}, nil, &out)
	return out, err
}
