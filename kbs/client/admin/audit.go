package admin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// auditPage is the number of entries asked for at once.
const auditPage = 200

// AuditQuery selects entries of the log; what is empty selects all. Kind,
// Subject and Object may end in "*".
type AuditQuery struct {
	Kind, Decision, Tenant, Subject, Object, Code string
	Since, Until                                  time.Time
}

func (q AuditQuery) values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{
		"kind": q.Kind, "decision": q.Decision, "tenant": q.Tenant, "subject": q.Subject, "object": q.Object, "code": q.Code,
	} {
		if value != "" {
			v.Set(name, value)
		}
	}
	for name, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			v.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	return v
}

// AuditPage is a part of the log.
type AuditPage struct {
	Entries []json.RawMessage // canonical JSON, in order
	Next    int64             // where the next page starts
	More    bool              // there is one
	Size    int64             // of the log
}

// AuditPage returns the entries that the query selects, from an index on, at
// most limit of them. A page may have few or none and not be the last.
func (c *Client) AuditPage(ctx context.Context, q AuditQuery, from int64, limit int) (AuditPage, error) {
	v := q.values()
	v.Set("from", strconv.FormatInt(from, 10))
	v.Set("limit", strconv.Itoa(limit))
	var out struct {
		Entries  []json.RawMessage `json:"entries"`
		Size     int64             `json:"size"`
		Continue string            `json:"continue"`
	}
	if err := c.audit(ctx, "entries", v, &out); err != nil {
		return AuditPage{}, err
	}
	if len(out.Entries) > limit {
		return AuditPage{}, fault.Newf(fault.Unavailable, "the broker sent %d audit entries where %d were asked for", len(out.Entries), limit)
	}
	p := AuditPage{Entries: out.Entries, Next: out.Size, Size: out.Size}
	if out.Continue == "" {
		return p, nil
	}
	next, err := strconv.ParseInt(out.Continue, 10, 64)
	if err != nil || next <= from {
		return AuditPage{}, fault.Newf(fault.Unavailable, "the broker says that page %.40q follows after %d", out.Continue, from)
	}
	p.Next, p.More = next, true
	return p, nil
}

// AuditEntries yields the canonical JSON of the entries with from <= index < to,
// in order, fetched page by page; to < 0 means all that there are. After an
// error it yields nothing more. Fewer entries than asked for is not an error
// here: whoever verifies the log counts them.
func (c *Client) AuditEntries(ctx context.Context, from, to int64) iter.Seq2[json.RawMessage, error] {
	return c.AuditSearch(ctx, AuditQuery{}, from, to)
}

// AuditSearch is AuditEntries of those that the query selects.
func (c *Client) AuditSearch(ctx context.Context, q AuditQuery, from, to int64) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		for to < 0 || from < to {
			limit := int64(auditPage)
			if to >= 0 {
				limit = min(limit, to-from)
			}
			page, err := c.AuditPage(ctx, q, from, int(limit))
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range page.Entries {
				if !yield(e, nil) {
					return
				}
			}
			if !page.More {
				return
			}
			from = page.Next
		}
	}
}

// AuditCheckpoint returns the signed checkpoint of the log as it is now: a
// signed note around a C2SP tlog-checkpoint.
func (c *Client) AuditCheckpoint(ctx context.Context) ([]byte, error) {
	return c.do(ctx, call{method: http.MethodGet, root: api.PathAudit, segments: []string{"checkpoint"}})
}

// AuditKey returns the key that the broker says it signs checkpoints with, in
// note verifier form. It proves nothing about a broker that lies: get the key
// by another way to check that.
func (c *Client) AuditKey(ctx context.Context) (string, error) {
	b, err := c.do(ctx, call{method: http.MethodGet, root: api.PathAudit, segments: []string{"key"}})
	return string(b), err
}

// AuditKeys returns the broker's key, and the hand-overs that lead to it from
// the first one. They can be checked by whoever has any of these keys.
func (c *Client) AuditKeys(ctx context.Context) (api.AuditKeys, error) {
	var out api.AuditKeys
	err := c.audit(ctx, "keys", nil, &out)
	return out, err
}

// RotateAuditKey makes the broker sign its checkpoints with a new key in the
// place of current; it is a conflict if another is in force.
func (c *Client) RotateAuditKey(ctx context.Context, current string) (api.AuditKeys, error) {
	var out api.AuditKeys
	err := c.doJSON(ctx, call{method: http.MethodPost, root: api.PathAudit, segments: []string{"key", "rotation"}}, api.AuditKeyRotation{Current: current}, &out)
	return out, err
}

// AuditArchived returns up to where the log is archived. What it says is proven by
// the tree that is built on it.
func (c *Client) AuditArchived(ctx context.Context) (api.AuditArchived, error) {
	var out api.AuditArchived
	err := c.audit(ctx, "archive", nil, &out)
	return out, err
}

// ArchiveAudit lets the broker give up the entries below size. Root is the hash of
// their tree.
func (c *Client) ArchiveAudit(ctx context.Context, size int64, root []byte) (api.AuditArchived, error) {
	var out api.AuditArchived
	err := c.doJSON(ctx, call{method: http.MethodPost, root: api.PathAudit, segments: []string{"archive"}}, api.AuditArchiving{Size: size, Root: root}, &out)
	return out, err
}

// AuditInclusion returns the hashes that prove that entry index is in the tree
// of the given size.
func (c *Client) AuditInclusion(ctx context.Context, index, size int64) ([][]byte, error) {
	return c.proof(ctx, "inclusion", url.Values{"index": {strconv.FormatInt(index, 10)}, "size": {strconv.FormatInt(size, 10)}})
}

// AuditConsistency returns the hashes that prove that the tree of size newer
// continues the tree of size older.
func (c *Client) AuditConsistency(ctx context.Context, older, newer int64) ([][]byte, error) {
	return c.proof(ctx, "consistency", url.Values{"old": {strconv.FormatInt(older, 10)}, "new": {strconv.FormatInt(newer, 10)}})
}

func (c *Client) proof(ctx context.Context, what string, q url.Values) ([][]byte, error) {
	var out struct {
		Proof []string `json:"proof"`
	}
	if err := c.audit(ctx, what, q, &out); err != nil {
		return nil, err
	}
	proof := make([][]byte, 0, len(out.Proof))
	for _, s := range out.Proof {
		h, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, fault.Newf(fault.Unavailable, "the %s proof is not base64: %w", what, err)
		}
		proof = append(proof, h)
	}
	return proof, nil
}

func (c *Client) audit(ctx context.Context, what string, q url.Values, out any) error {
	return c.doJSON(ctx, call{method: http.MethodGet, root: api.PathAudit, segments: []string{what}, query: q}, nil, out)
}
