package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// items is the envelope of every list.
type items[T any] struct {
	Items []T `json:"items"`
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

// TicketGroups lists refusals by their root cause, the last met first.
func (c *Client) TicketGroups(ctx context.Context, silenced bool) ([]api.TicketGroup, error) {
	q := url.Values{"limit": {"500"}}
	if silenced {
		q.Set("silenced", "true")
	}
	var out items[api.TicketGroup]
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathTicketGroups, query: q}, nil, &out)
	return out.Items, err
}

// SilenceTicketGroup leaves a group out of the list until s.Until.
func (c *Client) SilenceTicketGroup(ctx context.Context, id string, s api.Silence) (api.Silence, error) {
	var out api.Silence
	err := c.doJSON(ctx, call{method: http.MethodPut, root: api.PathTicketGroups, segments: []string{id, "silence"}}, s, &out)
	return out, err
}

// UnsilenceTicketGroup lists it again; the fault is NotFound if it is listed.
func (c *Client) UnsilenceTicketGroup(ctx context.Context, id string) error {
	return c.doJSON(ctx, call{method: http.MethodDelete, root: api.PathTicketGroups, segments: []string{id, "silence"}}, nil, nil)
}

// TicketGroup returns one of them; the fault is NotFound if there is none.
func (c *Client) TicketGroup(ctx context.Context, id string) (api.TicketGroup, error) {
	var out api.TicketGroup
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathTicketGroups, segments: []string{id}}, nil, &out)
	return out, err
}
