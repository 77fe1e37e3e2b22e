package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Pending says that a change was not made, because the tenant wants a second
// person for it: it waits as this approval. It is the private cause of the
// fault ApprovalPending that every change may return.
type Pending struct{ api.Approval }

// Error names the approval.
func (p *Pending) Error() string {
	return fmt.Sprintf("%s waits as approval/%s for a second person", p.Action, p.ID)
}

// waits is the fault for an answer of 202.
func waits(body []byte) error {
	p := &Pending{}
	if err := json.Unmarshal(body, &p.Approval); err != nil || p.ID == "" {
		return fault.Newf(fault.Unavailable, "the broker answered 202 with something that is no approval")
	}
	return fault.New(fault.ApprovalPending, p)
}

// Approvals lists the changes that wait for a second person or did, newest
// first, without what they would write.
func (c *Client) Approvals(ctx context.Context) ([]api.Approval, error) {
	var out items[api.Approval]
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathApprovals}, nil, &out)
	return out.Items, err
}

// Approval returns one; the fault is NotFound if absent.
func (c *Client) Approval(ctx context.Context, id string) (api.Approval, error) {
	var out api.Approval
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathApprovals, segments: []string{id}}, nil, &out)
	return out, err
}

// Approve lets the broker make a change that somebody else asked for. The fault
// is Conflict if it does not wait any more or its object has changed, and
// otherwise that of the change itself.
func (c *Client) Approve(ctx context.Context, id, reason string) (api.Approval, error) {
	return c.decide(ctx, id, "approve", reason)
}

// Deny ends a change that waits; who asked for it withdraws it.
func (c *Client) Deny(ctx context.Context, id, reason string) (api.Approval, error) {
	return c.decide(ctx, id, "deny", reason)
}

func (c *Client) decide(ctx context.Context, id, verb, reason string) (api.Approval, error) {
	var out api.Approval
	err := c.doJSON(ctx, call{method: http.MethodPost, root: api.PathApprovals, segments: []string{id, verb}}, api.ApprovalDecision{Reason: reason}, &out)
	return out, err
}
