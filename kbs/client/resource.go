package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Resource fetches and opens the resource that a URI names, for example
// "kbs:///default/key/1" (see [ParseResourceURI]). Errors are *fault.Fault
// with the broker's code and ticket where it gave them.
func (c *Client) Resource(ctx context.Context, uri string) (secret.Bytes, error) {
	u, err := ParseResourceURI(uri)
	if err != nil {
		return secret.Bytes{}, fault.New(fault.InvalidRequest, err)
	}
	a, s, err := c.authorised(ctx, request{method: http.MethodGet, path: u.requestPath()})
	if err != nil {
		return secret.Bytes{}, err
	}
	if a.status != http.StatusOK {
		return secret.Bytes{}, refusal(a)
	}
	var sealed api.JWE
	if err := json.Unmarshal(a.body, &sealed); err != nil {
		return secret.Bytes{}, badAnswer(fmt.Errorf("resource: %w", err))
	}
	plain, err := s.key.Open(sealed)
	if err != nil {
		return secret.Bytes{}, badAnswer(fmt.Errorf("resource: %w", err))
	}
	return plain, nil
}

// ReportRefusal tells the broker of a refusal that the guest made itself, so
// that its reason lies with the broker and the host sees only the ticket that
// comes back. A broker without our /v1 API gives [ErrUnsupported].
func (c *Client) ReportRefusal(ctx context.Context, r api.GuestRefusal) (fault.Ticket, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return "", fault.New(fault.Internal, err)
	}
	a, _, err := c.authorised(ctx, request{method: http.MethodPost, path: api.PathGuestRefusals, body: body})
	if err != nil {
		return "", err
	}
	switch a.status {
	case http.StatusOK, http.StatusCreated:
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return "", ErrUnsupported
	default:
		return "", refusal(a)
	}
	var receipt api.GuestRefusalReceipt
	if err := json.Unmarshal(a.body, &receipt); err != nil {
		return "", badAnswer(fmt.Errorf("refusal: %w", err))
	}
	t, err := fault.ParseTicket(receipt.Ticket)
	if err != nil {
		return "", badAnswer(fmt.Errorf("refusal: %w", err))
	}
	return t, nil
}

// authorised sends r with the token. If the broker does not take the token
// (401), it does so once more with a token that is newer than that one. It
// returns the session whose key the answer is sealed to.
func (c *Client) authorised(ctx context.Context, r request) (answer, *session, error) {
	s, err := c.own.get(ctx, nil)
	if err != nil {
		return answer{}, nil, err
	}
	r.bearer = s.token
	a, err := c.send(ctx, r)
	if err != nil || a.status != http.StatusUnauthorized {
		return a, s, err
	}
	c.log.InfoContext(ctx, "the broker no longer takes the token")
	if s, err = c.own.get(ctx, s); err != nil {
		return answer{}, nil, err
	}
	r.bearer = s.token
	a, err = c.send(ctx, r)
	return a, s, err
}
