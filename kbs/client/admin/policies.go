package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// policyPath spells a policy. Ids of resource policies have slashes.
func policyPath(kind, id string) []string {
	return append([]string{kind}, strings.Split(id, "/")...)
}

// Policies lists the policies, without their text.
func (c *Client) Policies(ctx context.Context) ([]api.Policy, error) {
	var out items[api.Policy]
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathPolicies}, nil, &out)
	return out.Items, err
}

// Policy returns one policy with its text; the fault is NotFound if absent.
func (c *Client) Policy(ctx context.Context, kind, id string) (api.Policy, error) {
	var out api.Policy
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathPolicies, segments: policyPath(kind, id)}, nil, &out)
	return out, err
}

// PutPolicy writes p if the stored policy is at p.Version; see [api.Policy] for
// versions 0 and -1. The fault is Conflict if it is not, InvalidRequest if the
// text does not compile. It returns the policy as stored.
func (c *Client) PutPolicy(ctx context.Context, p api.Policy) (api.Policy, error) {
	var out api.Policy
	err := c.doJSON(ctx, call{method: http.MethodPut, root: api.PathPolicies, segments: policyPath(p.Kind, p.ID)}, p, &out)
	return out, err
}

// DeletePolicy removes a policy.
func (c *Client) DeletePolicy(ctx context.Context, kind, id string) error {
	return c.doJSON(ctx, call{method: http.MethodDelete, root: api.PathPolicies, segments: policyPath(kind, id)}, nil, nil)
}

// PolicyVersion returns one version of a policy; the fault is NotFound if it
// never was, or is not kept any more.
func (c *Client) PolicyVersion(ctx context.Context, kind, id string, version int64) (api.Policy, error) {
	var out api.Policy
	err := c.doJSON(ctx, call{
		method: http.MethodGet, root: api.PathPolicies, segments: policyPath(kind, id),
		query: url.Values{"version": {strconv.FormatInt(version, 10)}},
	}, nil, &out)
	return out, err
}

// PolicyVersions lists the versions that are kept, the oldest first, without
// their texts.
func (c *Client) PolicyVersions(ctx context.Context, kind, id string) ([]api.Policy, error) {
	var out items[api.Policy]
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathPolicyVersions, segments: policyPath(kind, id)}, nil, &out)
	return out.Items, err
}

// MovePolicy changes the stage of a version and returns it as it stands then.
// The fault is Conflict if another version is in force than s.Version says,
// StageRequired or NewlyAllowed if the broker holds a promotion up.
func (c *Client) MovePolicy(ctx context.Context, kind, id string, s api.StageChange) (api.Policy, error) {
	var out api.Policy
	err := c.doJSON(ctx, call{method: http.MethodPost, root: api.PathPolicyStages, segments: policyPath(kind, id)}, s, &out)
	return out, err
}
