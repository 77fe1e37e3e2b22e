package admin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// auditPage is the number of entries asked for at once.
const auditPage = 200

// AuditEntries yields the canonical JSON of the entries with from <= index < to,
// in order, fetched page by page; to < 0 means all that there are. After an
// error it yields nothing more. Fewer entries than asked for is not an error
// here: whoever verifies the log counts them.
func (c *Client) AuditEntries(ctx context.Context, from, to int64) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		for to < 0 || from < to {
			limit := int64(auditPage)
			if to >= 0 {
				limit = min(limit, to-from)
			}
			page, next, err := c.auditPage(ctx, from, limit)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
			}
			if next <= from {
				return
			}
			from = next
		}
	}
}

// auditPage returns one page, and where the next one begins: at from itself if
// there is no more. A broker that shows one tenant's entries says where.
func (c *Client) auditPage(ctx context.Context, from, limit int64) ([]json.RawMessage, int64, error) {
	var out struct {
		Entries []json.RawMessage `json:"entries"`
		Next    *int64            `json:"next"`
	}
	err := c.audit(ctx, "entries", url.Values{"from": {strconv.FormatInt(from, 10)}, "limit": {strconv.FormatInt(limit, 10)}}, &out)
	if err != nil {
		return nil, 0, err
	}
	if int64(len(out.Entries)) > limit {
		return nil, 0, fault.Newf(fault.Unavailable, "the broker sent %d audit entries where %d were asked for", len(out.Entries), limit)
	}
	if out.Next != nil {
		return out.Entries, *out.Next, nil
	}
	return out.Entries, from + int64(len(out.Entries)), nil
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
