package admin

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

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

// DeletePolicy removes a policy that is at version want.
func (c *Client) DeletePolicy(ctx context.Context, kind, id string, want int64) error {
	return c.remove(ctx, api.PathPolicies, policyPath(kind, id), want)
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

// PolicyShadow returns what the shadow of a policy would have done; the fault
// is NotFound if the policy has none.
func (c *Client) PolicyShadow(ctx context.Context, kind, id string) (api.ShadowReport, error) {
	var out api.ShadowReport
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathPolicyShadows, segments: policyPath(kind, id)}, nil, &out)
	return out, err
}

// ReplayPolicy asks what a candidate would do to the recorded decisions.
func (c *Client) ReplayPolicy(ctx context.Context, kind, id string, r api.ReplayRequest) (api.ReplayReport, error) {
	var out api.ReplayReport
	err := c.doJSON(ctx, call{method: http.MethodPost, root: api.PathPolicyReplays, segments: policyPath(kind, id)}, r, &out)
	return out, err
}

// decisionPage is the number of decisions asked for at once.
const decisionPage = 100

// Decisions yields the recorded decisions that were seen since a time, fetched
// page by page. After an error it yields nothing more.
func (c *Client) Decisions(ctx context.Context, since time.Time) iter.Seq2[api.Decision, error] {
	return func(yield func(api.Decision, error) bool) {
		for after := ""; ; {
			q := url.Values{"limit": {strconv.Itoa(decisionPage)}, "since": {since.UTC().Format(time.RFC3339)}}
			if after != "" {
				q.Set("after", after)
			}
			var page items[api.Decision]
			if err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathDecisions, query: q}, nil, &page); err != nil {
				yield(api.Decision{}, err)
				return
			}
			for _, d := range page.Items {
				if !yield(d, nil) {
					return
				}
				after = d.Kind + "/" + d.Digest
			}
			if len(page.Items) < decisionPage {
				return
			}
		}
	}
}
