package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

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

// DeleteRefValue removes a reference value that is at version want, whoever
// vouched for it.
func (c *Client) DeleteRefValue(ctx context.Context, name string, want int64) error {
	return c.remove(ctx, api.PathRefValues, strings.Split(name, "/"), want)
}

// refSetPage is how many documents are asked for at once.
const refSetPage = 500

// RefSets lists the documents of reference values.
func (c *Client) RefSets(ctx context.Context) ([]api.RefSet, error) {
	var all []api.RefSet
	for after := ""; ; {
		var out items[api.RefSet]
		q := url.Values{"limit": {strconv.Itoa(refSetPage)}, "after": {after}}
		if err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathRefSets, query: q}, nil, &out); err != nil {
			return nil, err
		}
		all = append(all, out.Items...)
		if len(out.Items) < refSetPage {
			return all, nil
		}
		after = out.Items[len(out.Items)-1].ID
	}
}

// RefSet describes one document; the fault is NotFound if absent.
func (c *Client) RefSet(ctx context.Context, id string) (api.RefSet, error) {
	var out api.RefSet
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathRefSets, segments: strings.Split(id, "/")}, nil, &out)
	return out, err
}

// RegisterRefSet registers a document (CoRIM). The reason is for one that has
// no signature.
func (c *Client) RegisterRefSet(ctx context.Context, document []byte, reason string) (api.RefSet, error) {
	r := call{method: http.MethodPost, root: api.PathRefSets, body: document, mime: "application/rim+cbor"}
	if reason != "" {
		r.query = url.Values{"unsigned-reason": {reason}}
	}
	var out api.RefSet
	err := c.doJSON(ctx, r, nil, &out)
	return out, err
}

// WithdrawRefSet withdraws a document and all that it says.
func (c *Client) WithdrawRefSet(ctx context.Context, id string, want int64) error {
	return c.remove(ctx, api.PathRefSets, strings.Split(id, "/"), want)
}

// Signers lists who may sign documents.
func (c *Client) Signers(ctx context.Context) ([]api.Signer, error) {
	var out items[api.Signer]
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathSigners}, nil, &out)
	return out.Items, err
}

// Signer returns one signer; the fault is NotFound if absent.
func (c *Client) Signer(ctx context.Context, name string) (api.Signer, error) {
	var out api.Signer
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathSigners, segments: []string{name}}, nil, &out)
	return out, err
}

// PutSigner trusts a signer, if the stored one is at s.Version.
func (c *Client) PutSigner(ctx context.Context, s api.Signer) (api.Signer, error) {
	var out api.Signer
	err := c.doJSON(ctx, call{method: http.MethodPut, root: api.PathSigners, segments: []string{s.Name}}, s, &out)
	return out, err
}

// DeleteSigner trusts a signer that is at version want no more. What it signed
// stays.
func (c *Client) DeleteSigner(ctx context.Context, name string, want int64) error {
	return c.remove(ctx, api.PathSigners, []string{name}, want)
}
