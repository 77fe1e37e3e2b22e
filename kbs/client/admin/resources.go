package admin

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// AnyVersion is the version of a change that wants whatever is there; 0 wants
// nothing to be there.
const AnyVersion int64 = -1

// ResourceQuery selects resources. Zero members select all.
type ResourceQuery struct {
	Prefix        string
	Limit         int // 0 is all
	Owner         string
	Labels        map[string]string
	ExpiresBefore time.Time
}

func (q ResourceQuery) values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("prefix", q.Prefix)
	set("owner", q.Owner)
	v["label"] = labelsOf(q.Labels)
	if !q.ExpiresBefore.IsZero() {
		v.Set("expires_before", q.ExpiresBefore.UTC().Format(time.RFC3339))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(min(q.Limit, maxResourcePage)))
	}
	return v
}

const maxResourcePage = 1000

func labelsOf(m map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return out
}

// Resources describes resources, in the order of their paths, without their
// versions.
func (c *Client) Resources(ctx context.Context, q ResourceQuery) ([]api.ResourceInfo, error) {
	r := call{method: http.MethodGet, root: api.PathResources, query: q.values()}
	var all []api.ResourceInfo
	for {
		var page api.ResourcePage
		if err := c.doJSON(ctx, r, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if q.Limit > 0 && len(all) >= q.Limit {
			return all[:q.Limit], nil
		}
		switch page.Continue {
		case "":
			return all, nil
		case r.query.Get("continue"):
			return nil, fault.Newf(fault.Unavailable, "the list of resources has no end")
		}
		r.query.Set("continue", page.Continue)
	}
}

// Resource describes one resource with its versions; the fault is NotFound if
// absent.
func (c *Client) Resource(ctx context.Context, path string) (api.ResourceInfo, error) {
	return c.resource(ctx, call{method: http.MethodGet}, path, nil)
}

// resource makes a call whose answer is the resource at path; more segments
// follow those of the path.
func (c *Client) resource(ctx context.Context, r call, path string, in any, more ...string) (api.ResourceInfo, error) {
	r.root, r.segments = api.PathResources, append(strings.Split(path, "/"), more...)
	var out api.ResourceInfo
	err := c.doJSON(ctx, r, in, &out)
	return out, err
}

// PutResource stores a new version of the resource repo/type/tag, whatever is
// there. What is said about it stays.
func (c *Client) PutResource(ctx context.Context, path string, value secret.Bytes) (api.ResourceInfo, error) {
	return c.PutResourceIf(ctx, path, AnyVersion, value, nil)
}

// PutResourceIf stores a new version if the resource is at version want; the
// fault is Conflict if it is not. meta, unless nil, replaces what is said about
// the resource.
func (c *Client) PutResourceIf(ctx context.Context, path string, want int64, value secret.Bytes, meta *api.ResourceMeta) (api.ResourceInfo, error) {
	body := value.Reveal()
	if body == nil {
		body = []byte{}
	}
	r := call{method: http.MethodPut, header: ifMatch(want), body: body, mime: "application/octet-stream"}
	if meta != nil {
		r.query = metaQuery(*meta)
	}
	return c.resource(ctx, r, path, nil)
}

func metaQuery(m api.ResourceMeta) url.Values {
	v := url.Values{"owner": {m.Owner}, "purpose": {m.Purpose}, "content_type": {m.ContentType}, "hold": {m.Hold}}
	v["label"], v["image"] = labelsOf(m.Labels), m.Images
	if !m.Expires.IsZero() {
		v.Set("expires", m.Expires.UTC().Format(time.RFC3339))
	}
	return v
}

func ifMatch(want int64) http.Header {
	if want == AnyVersion {
		return nil
	}
	return http.Header{"If-Match": {strconv.Quote(strconv.FormatInt(want, 10))}}
}

// SetResourceMeta replaces what is said about a resource.
func (c *Client) SetResourceMeta(ctx context.Context, path string, want int64, meta api.ResourceMeta) (api.ResourceInfo, error) {
	return c.resource(ctx, call{method: http.MethodPut, header: ifMatch(want)}, path, meta, "metadata")
}

// RollbackResource stores the value of a former version again.
func (c *Client) RollbackResource(ctx context.Context, path string, want, to int64) (api.ResourceInfo, error) {
	return c.resource(ctx, call{method: http.MethodPost, header: ifMatch(want)}, path, api.ResourceRollback{To: to}, "rollback")
}

// DestroyResourceVersion wipes the value of a former version.
func (c *Client) DestroyResourceVersion(ctx context.Context, path string, want, version int64) (api.ResourceInfo, error) {
	r := call{method: http.MethodDelete, header: ifMatch(want)}
	return c.resource(ctx, r, path, nil, "versions", strconv.FormatInt(version, 10))
}

// DeleteResource removes a resource that is at version want, with all its
// versions.
func (c *Client) DeleteResource(ctx context.Context, path string, want int64) error {
	return c.remove(ctx, api.PathResources, strings.Split(path, "/"), want)
}

// remove deletes an object that is at version want; the fault is Conflict if it
// is not. AnyVersion deletes whatever is there.
func (c *Client) remove(ctx context.Context, root string, name []string, want int64) error {
	return c.doJSON(ctx, call{method: http.MethodDelete, root: root, segments: name, header: ifMatch(want)}, nil, nil)
}

// MasterKey describes the keys that the broker's store is under.
func (c *Client) MasterKey(ctx context.Context) (api.MasterKey, error) {
	var out api.MasterKey
	err := c.doJSON(ctx, call{method: http.MethodGet, root: api.PathMasterKey}, nil, &out)
	return out, err
}

// RotateMasterKey begins a rotation, to a key that the broker has or, for "",
// to one that it makes.
func (c *Client) RotateMasterKey(ctx context.Context, to string) (api.MasterKey, error) {
	var out api.MasterKey
	err := c.doJSON(ctx, call{method: http.MethodPost, root: api.PathMasterKey, segments: []string{"rotate"}}, api.RotateMasterKey{To: to}, &out)
	return out, err
}
