package admin

import (
	"context"
	"net/http"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Appraise has the broker judge evidence as if a guest had come with it. What a
// guest would be refused for is the fault.
func (c *Client) Appraise(ctx context.Context, r api.AppraisalRequest) (api.Appraisal, error) {
	var out api.Appraisal
	err := c.doJSON(ctx, call{method: http.MethodPost, root: api.PathAppraisals}, r, &out)
	return out, err
}

// ImagePolicy reads a resource that is an image policy; the fault is
// InvalidRequest if it is something else, and NotFound if there is nothing.
func (c *Client) ImagePolicy(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, call{method: http.MethodGet, root: api.PathImagePolicies, segments: strings.Split(path, "/")})
}
