package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// wish reads what a guest asks for beside the path. The policy sees the same
// query, and may refuse it.
func wish(r *http.Request) (resource.Wish, error) {
	var w resource.Wish
	in := r.URL.Query()
	last := func(name string) string { // the last one wins (kbs-protocol 2.1), as the policy sees it
		if vs := in[name]; len(vs) > 0 {
			return vs[len(vs)-1]
		}
		return ""
	}
	if text := last(api.QueryVersion); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			return w, fault.Newf(fault.InvalidRequest, "version must be a number from 1")
		}
		w.Version = n
	}
	var err error
	w.Image, err = resource.ParseImage(last(api.QueryImage), last(api.QueryImageReference))
	return w, err
}

// withheld are the codes of what a resource itself forbids.
func withheld(w *resource.Withheld) fault.Code {
	switch {
	case errors.Is(w, resource.ErrExpired):
		return fault.ResourceExpired
	case errors.Is(w, resource.ErrImage):
		return fault.ImageBinding
	default:
		return fault.ResourceHeld
	}
}

// sealed fetches the value and encrypts it to the guest's key. x gets what a
// ticket should show.
func (s *Server) sealed(ctx context.Context, path resource.Path, c token.Claims, w resource.Wish, x *api.Explanation) ([]byte, api.ResourceInfo, error) {
	key, err := c.TEEKey()
	if err != nil {
		return nil, api.ResourceInfo{}, fault.New(fault.TokenInvalid, err)
	}
	item, err := s.fetch(ctx, path, w, x)
	if err != nil {
		return nil, item.Info, err
	}
	defer item.Value.Destroy()
	raw, err := s.seal(ctx, key, item.Value.Reveal())
	return raw, item.Info, err
}

// seal encrypts an answer to the guest's key, in the form of its protocol.
func (s *Server) seal(ctx context.Context, key api.JWK, value []byte) ([]byte, error) {
	seal := jwe.Seal
	if s.InsecureProtocol01 && key.Alg == jwe.AlgRSA15 { // no other guest was attested with it
		seal = jwe.UnsafeSealV01
	}
	_, done := observe.Step(ctx, observe.StepSeal)
	msg, err := seal(rand.Reader, key, value)
	done(err)
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, fmt.Errorf("%w: %w", errSeal, err))
	}
	return json.Marshal(msg)
}

// fetch reads a value from its back end, if it may go to this guest.
func (s *Server) fetch(ctx context.Context, path resource.Path, w resource.Wish, x *api.Explanation) (item resource.Item, err error) {
	ctx, done := observe.Step(ctx, observe.StepFetch)
	defer func() { done(err) }()
	item, err = resource.Release(ctx, s.Resources, path, w, s.Now())
	if no, ok := errors.AsType[*resource.Withheld](err); ok {
		x.Findings = append(x.Findings, no.Finding)
		return item, fault.New(withheld(no), err)
	}
	if err != nil {
		return item, fault.New(known(err).Code, fmt.Errorf("resource back end: %w", err))
	}
	return item, nil
}

// expiresSoon is how long before its end a release of a resource says so.
const expiresSoon = 14 * 24 * time.Hour

// releaseDetails is what the log keeps of a release. An end that is near is in
// it, so that whoever watches the log learns of it before guests do.
func releaseDetails(policy string, info api.ResourceInfo, i resource.Image, now time.Time) map[string]string {
	d := map[string]string{"policy": policy}
	if info.Value != 0 {
		d["version"] = strconv.FormatInt(info.Value, 10)
	}
	if info.Backend != "" {
		d["backend"] = info.Backend
	}
	if !info.Expires.IsZero() && info.Expires.Sub(now) < expiresSoon {
		d["expires"] = info.Expires.UTC().Format(time.RFC3339)
	}
	if i.Known() {
		d["image"] = clip(i.String(), maxObject)
	}
	return d
}
