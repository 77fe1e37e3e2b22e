package admin

import (
	"context"
	"net/http"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// TokenKeys lists the keys that sign attestation tokens.
func (c *Client) TokenKeys(ctx context.Context) (api.TokenKeys, error) {
	var out api.TokenKeys
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathTokenKeys}, nil, &out)
	return out, err
}

// RotateTokenKey makes the next key sign, if the keys are at version want.
func (c *Client) RotateTokenKey(ctx context.Context, how api.RotateTokenKey, want int64) (api.TokenKeys, error) {
	var out api.TokenKeys
	err := c.doJSON(ctx, call{method: http.MethodPost, root: api.PathRotateTokenKey, header: ifMatch(want)}, how, &out)
	return out, err
}
