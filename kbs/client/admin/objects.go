package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
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

// Resources describes the resources whose path starts with prefix.
func (c *Client) Resources(ctx context.Context, prefix string) ([]api.ResourceInfo, error) {
	r := call{method: http.MethodGet, root: api.PathResources}
	if prefix != "" {
		r.query = url.Values{"prefix": {prefix}}
	}
	var out items[api.ResourceInfo]
	err := c.doJSON(ctx, r, nil, &out)
	return out.Items, err
}

// Resource describes one resource; the fault is NotFound if absent.
func (c *Client) Resource(ctx context.Context, path string) (api.ResourceInfo, error) {
	all, err := c.Resources(ctx, path)
	if err != nil {
		return api.ResourceInfo{}, err
	}
	for _, r := range all {
		if r.Path == path {
			return r, nil
		}
	}
	return api.ResourceInfo{}, fault.Newf(fault.NotFound, "there is no resource %s", path)
}

// PutResource stores a new version of the resource repo/type/tag.
func (c *Client) PutResource(ctx context.Context, path string, value secret.Bytes) (api.ResourceInfo, error) {
	body := value.Reveal()
	if body == nil {
		body = []byte{}
	}
	var out api.ResourceInfo
	err := c.doJSON(ctx, call{
		method: http.MethodPut, root: api.PathResources, segments: strings.Split(path, "/"),
		body: body, mime: "application/octet-stream",
	}, nil, &out)
	return out, err
}

// DeleteResource removes a resource with all its versions.
func (c *Client) DeleteResource(ctx context.Context, path string) error {
	return c.doJSON(ctx, call{method: http.MethodDelete, root: api.PathResources, segments: strings.Split(path, "/")}, nil, nil)
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
