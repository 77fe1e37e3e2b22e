package server

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

const typeKeySet = "application/jwk-set+json"

// keySetAge is for caches of the key set: a third of the time for which a key
// is published before it signs.
var keySetAge = "public, max-age=" + strconv.Itoa(int(token.PublishedFirst.Seconds())/3)

func (s *Server) keySet(w http.ResponseWriter, r *http.Request) error {
	set, err := s.TokenKeys.KeySet(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", keySetAge)
	s.answerJSON(w, http.StatusOK, typeKeySet, set)
	return nil
}

// discovery tells where the key set is. An issuer that is not named by a URL
// is found under the address that was asked, which no cache may keep: the
// asker chose it.
func (s *Server) discovery(w http.ResponseWriter, r *http.Request) error {
	issuer := s.Issuer.Name()
	at := issuer
	if u, err := url.Parse(issuer); err == nil && u.Scheme == "https" && u.Host != "" {
		w.Header().Set("Cache-Control", keySetAge)
	} else {
		at = "http://" + r.Host + base(r.Context())
		if r.TLS != nil {
			at = "https://" + r.Host + base(r.Context())
		}
	}
	s.answerJSON(w, http.StatusOK, typeJSON, api.Discovery{
		Issuer: issuer, JWKSURI: strings.TrimSuffix(at, "/") + api.PathJWKS,
		Algorithms: []string{"ES256"}, Responses: []string{"id_token"}, Subjects: []string{"public"},
	})
	return nil
}

func (s *Server) listTokenKeys(w http.ResponseWriter, r *http.Request, _ admin.Identity) error {
	all, err := s.TokenKeys.List(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(all.Version, 10)))
	s.answerJSON(w, http.StatusOK, "application/json", all)
	return nil
}

func (s *Server) rotateTokenKey(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
	raw, err := body(r)
	if err != nil {
		return err
	}
	var how api.RotateTokenKey
	if len(raw) > 0 {
		if err := exactly(raw, &how); err != nil {
			return err
		}
	}
	version, err := seen(r, int64(store.Any))
	if err != nil {
		return err
	}
	err = s.TokenKeys.Rotate(r.Context(), token.Rotation{By: who.String(), Version: store.Version(version), Now: how.Now, Revoke: how.Revoke})
	if err != nil {
		return err
	}
	return s.listTokenKeys(w, r, who)
}
