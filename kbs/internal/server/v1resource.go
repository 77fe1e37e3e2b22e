package server

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// resourcePage is how many resources a page has by default, and at most.
const (
	resourcePage    = 500
	maxResourcePage = 1000
)

func (s *Server) listResources(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	limit, err := number(r, "limit", resourcePage, 1, maxResourcePage)
	if err != nil {
		return err
	}
	in := r.URL.Query()
	q := resource.Query{Prefix: in.Get("prefix"), Limit: int(limit), Owner: in.Get("owner")}
	if q.Labels, err = labels(in["label"]); err != nil {
		return err
	}
	if q.Expires, err = timeOf(in, "expires_before"); err != nil {
		return err
	}
	after, err := base64.RawURLEncoding.DecodeString(in.Get("continue"))
	if err != nil {
		return fault.Newf(fault.InvalidRequest, "continue is not what an earlier page gave")
	}
	q.After = string(after)
	page, err := s.Resources.List(r.Context(), q)
	if err != nil {
		return err
	}
	out := api.ResourcePage{Items: listed(page.Items).Items, Continue: base64.RawURLEncoding.EncodeToString([]byte(page.Next))}
	s.answerJSON(w, http.StatusOK, "application/json", out)
	return nil
}

func labels(texts []string) (map[string]string, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	for _, t := range texts {
		k, v, ok := strings.Cut(t, "=")
		if _, twice := out[k]; !ok || twice {
			return nil, fault.Newf(fault.InvalidRequest, "label must be NAME=VALUE, once for each name")
		}
		out[k] = v
	}
	return out, nil
}

func timeOf(in url.Values, name string) (time.Time, error) {
	text := in.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fault.Newf(fault.InvalidRequest, "%s must be a time like 2027-01-31T12:00:00Z", name)
	}
	return t, nil
}

func (s *Server) describeResource(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	path, err := resourcePath(r)
	if err != nil {
		return err
	}
	info, err := s.Resources.Describe(r.Context(), path)
	if err != nil {
		return err
	}
	s.answerResource(w, info)
	return nil
}

func (s *Server) answerResource(w http.ResponseWriter, info api.ResourceInfo) {
	w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(info.Version, 10)))
	s.answerJSON(w, http.StatusOK, "application/json", info)
}

// metaOf reads what is said about a resource from the query of a PUT, whose
// body is the value; nil if that is nothing.
func metaOf(in url.Values) (*api.ResourceMeta, error) {
	given := false
	for _, name := range metaQuery {
		given = given || in.Has(name)
	}
	if !given {
		return nil, nil
	}
	m := &api.ResourceMeta{
		Owner: in.Get("owner"), Purpose: in.Get("purpose"), ContentType: in.Get("content_type"), Hold: in.Get("hold"), Images: in["image"],
	}
	var err error
	if m.Labels, err = labels(in["label"]); err != nil {
		return nil, err
	}
	m.Expires, err = timeOf(in, "expires")
	return m, err
}

var metaQuery = []string{"owner", "purpose", "content_type", "expires", "hold", "label", "image"}

// changing reads what every change of a resource names: the path, and the
// version that the writer saw.
func changing(r *http.Request, who admin.Identity, op resource.Op) (resource.Change, error) {
	path, err := resourcePath(r)
	if err != nil {
		return resource.Change{}, err
	}
	in := int64(store.Any)
	if r.URL.Query().Has("version") {
		if in, err = number(r, "version", in, int64(store.Any), 1<<62); err != nil {
			return resource.Change{}, err
		}
	}
	want, err := seen(r, in)
	return resource.Change{Op: op, Path: path, Want: want, Author: who.String()}, err
}

func (s *Server) putResource(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	c, err := changing(r, who, resource.OpPut)
	if err != nil {
		return err
	}
	if c.Meta, err = metaOf(r.URL.Query()); err != nil {
		return err
	}
	return s.storeResource(w, r, who, c, s.answerResource)
}

// storeResource serves both protocols.
func (s *Server) storeResource(w http.ResponseWriter, r *http.Request, who admin.Identity, c resource.Change, answer func(http.ResponseWriter, api.ResourceInfo)) error {
	raw, err := body(r)
	if err != nil {
		return err
	}
	c.Value = secret.New(raw)
	defer c.Value.Destroy()
	info, err := s.changeResource(r.Context(), who, api.AuditEntry{Kind: api.AuditResourcePut}, c)
	if err != nil {
		return err
	}
	answer(w, info)
	return nil
}

func (s *Server) putResourceMeta(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	c, err := changing(r, who, resource.OpMeta)
	if err != nil {
		return err
	}
	c.Meta = &api.ResourceMeta{}
	if err := exactBody(r, c.Meta); err != nil {
		return err
	}
	info, err := s.changeResource(r.Context(), who, api.AuditEntry{Kind: api.AuditResourceMeta}, c)
	if err != nil {
		return err
	}
	s.answerResource(w, info)
	return nil
}

func (s *Server) rollbackResource(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	c, err := changing(r, who, resource.OpRollback)
	if err != nil {
		return err
	}
	var to api.ResourceRollback
	if err := exactBody(r, &to); err != nil {
		return err
	}
	if to.To < 1 {
		return fault.Newf(fault.InvalidRequest, "the body names no version to go back to")
	}
	c.Version = to.To
	info, err := s.changeResource(r.Context(), who, api.AuditEntry{Kind: api.AuditResourceRollback}, c)
	if err != nil {
		return err
	}
	s.answerResource(w, info)
	return nil
}

func (s *Server) destroyResourceVersion(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	c, err := changing(r, who, resource.OpDestroy)
	if err != nil {
		return err
	}
	if c.Version, err = strconv.ParseInt(r.PathValue("version"), 10, 64); err != nil || c.Version < 1 {
		return fault.Newf(fault.InvalidRequest, "the path names no version")
	}
	info, err := s.changeResource(r.Context(), who, api.AuditEntry{Kind: api.AuditResourceDestroy}, c)
	if err != nil {
		return err
	}
	s.answerResource(w, info)
	return nil
}

func (s *Server) deleteResource(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	c, err := changing(r, who, resource.OpDelete)
	if err != nil {
		return err
	}
	if _, err := s.changeResource(r.Context(), who, api.AuditEntry{Kind: api.AuditResourceDelete}, c); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// changeResource makes a change, with its audit entry in the same transaction
// where the back end has one. The entry names the version, never the value.
func (s *Server) changeResource(ctx context.Context, who admin.Identity, e api.AuditEntry, c resource.Change) (api.ResourceInfo, error) {
	e.Object = object(c.Path)
	var info api.ResourceInfo
	err := s.Resources.Run(ctx, c, func(commit resource.Commit) error {
		return s.changeEntry(ctx, who, func(tx store.Tx) (api.AuditEntry, error) {
			var err error
			if info, err = commit(tx); err != nil {
				return e, err
			}
			e.Details = changeDetails(c, info)
			return e, nil
		})
	}, func(do func() (api.ResourceInfo, error)) error {
		e.Details = changeDetails(c, api.ResourceInfo{})
		return s.changeElsewhere(ctx, who, e, func() (err error) {
			info, err = do()
			return err
		})
	})
	return info, err
}

// changeDetails is what the log keeps of a change: enough to see a binding or
// a hold come and go.
func changeDetails(c resource.Change, info api.ResourceInfo) map[string]string {
	d := map[string]string{}
	add := func(name, value string) {
		if value != "" {
			d[name] = value
		}
	}
	if c.Op != resource.OpDelete && info.Version != 0 {
		add("version", strconv.FormatInt(info.Version, 10))
	}
	if c.Version != 0 {
		add("value_version", strconv.FormatInt(c.Version, 10))
	}
	if c.Meta != nil {
		add("images", clip(strings.Join(c.Meta.Images, " "), maxObject))
		add("hold", c.Meta.Hold)
		if !c.Meta.Expires.IsZero() {
			add("expires", c.Meta.Expires.UTC().Format(time.RFC3339))
		}
	}
	return d
}

func (s *Server) v0PutResource(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	path, err := resourcePath(r)
	if err != nil {
		return err
	}
	c := resource.Change{Op: resource.OpPut, Path: path, Want: int64(store.Any), Author: who.String()}
	return s.storeResource(w, r, who, c, func(w http.ResponseWriter, _ api.ResourceInfo) { s.answer(w, http.StatusOK, plainType, nil) })
}

func (s *Server) v0DeleteResource(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	path, err := resourcePath(r)
	if err != nil {
		return err
	}
	c := resource.Change{Op: resource.OpDelete, Path: path, Want: int64(store.Any), Author: who.String()}
	if _, err := s.changeResource(r.Context(), who, api.AuditEntry{Kind: api.AuditResourceDelete}, c); err != nil {
		return err
	}
	s.answer(w, http.StatusOK, plainType, nil)
	return nil
}
