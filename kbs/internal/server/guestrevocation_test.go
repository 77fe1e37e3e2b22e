package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
)

// cutOff revokes, and returns the revocation.
func (s *stage) cutOff(body string) api.GuestRevocation {
	s.t.Helper()
	var r api.GuestRevocation
	if err := json.Unmarshal(s.must(http.MethodPost, api.PathGuestRevocations, []byte(body)), &r); err != nil || r.ID == "" || r.Author == "" {
		s.t.Fatalf("%+v: %v", r, err)
	}
	return r
}

// An administrator's word ends what a guest has, from the next request on:
// with its session, with its token, and as what else it may do.
func TestRevokedGuests(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	sim := guest(t, "lab", "agent 1")
	other := guest(t, "lab", "agent 1") // the same software on another chip
	h := s.auth(sim)
	text := h.token()
	bearer := "Authorization: Bearer " + text
	get := func(header string) answer {
		return s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, header)
	}
	refused := func(what string, a answer, status int, code string) {
		t.Helper()
		e := a.info(t)
		if a.status != status || e.Code != code {
			t.Fatalf("%s: %d %s", what, a.status, a.body)
		}
		s.discreet(a.body)
		if x := s.explain(e.Ticket); !strings.Contains(x.Cause, "revoked by admin:bootstrap: incident 7") || x.Platform != "snp" {
			t.Errorf("%s: %+v", what, x)
		}
	}
	if a := get(bearer); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}

	// By the token: the guest must earn another one, and can.
	entries := s.entries()
	id := ""
	for _, e := range entries {
		if e.Kind == api.AuditAttest {
			id = strings.TrimPrefix(e.Object, "token/")
		}
	}
	r := s.cutOff(`{"token_id":"` + id + `","reason":"incident 7"}`)
	if left := time.Until(r.Until); left < 5*time.Minute || left > 10*time.Minute {
		t.Errorf("it ends in %s", left)
	}
	refused("with the token", get(bearer), 401, "token_invalid")
	refused("with the session", get("Cookie: "+h.cookie), 401, "token_invalid")
	if a := s.send(http.MethodPost, s.guestURL+api.PathGuestRefusals, []byte(`{"code":"image_unsigned"}`), bearer); a.status != 401 {
		t.Errorf("a report: %d %s", a.status, a.body)
	}
	bearer = "Authorization: Bearer " + s.auth(sim).token()
	if a := get(bearer); a.status != http.StatusOK {
		t.Fatalf("attested again: %d %s", a.status, a.body)
	}

	// By the chip: it gets nothing for what it has, and no token any more.
	elsewhere := "Authorization: Bearer " + s.auth(other).token()
	chip, _ := claimsOf(t, sim)["chip_id"].(string)
	r = s.cutOff(`{"claim":"snp.chip_id","value":"` + strings.ToUpper(chip) + `","reason":"incident 7"}`)
	refused("the chip's token", get(bearer), 403, "guest_revoked")
	again := s.auth(sim)
	refused("the chip's evidence", again.attest(again.message(again.nonce)), 403, "guest_revoked")
	if a := get(elsewhere); a.status != http.StatusOK {
		t.Errorf("another chip: %d %s", a.status, a.body)
	}
	// A tenant's list is its own.
	if a := s.in("a").auth(sim); a.token() == "" {
		t.Error("another tenant cut it off")
	}
	s.must(http.MethodDelete, api.PathGuestRevocations+"/"+r.ID, nil)
	if a := get(bearer); a.status != http.StatusOK {
		t.Errorf("taken back: %d %s", a.status, a.body)
	}
	var kinds []string
	for _, e := range s.entries()[len(entries):] {
		if strings.HasPrefix(string(e.Kind), "guest.re") {
			kinds = append(kinds, string(e.Kind)+" "+e.Details["reason"]+" "+e.Details["claim"])
		}
	}
	if got := strings.Join(kinds, ", "); got != "guest.revoke incident 7 , guest.revoke incident 7 snp.chip_id, guest.reinstate incident 7 snp.chip_id" {
		t.Errorf("audited: %s", got)
	}
	// It outlives the broker that took it.
	s.cutOff(`{"claim":"snp.chip_id","value":"` + chip + `","reason":"incident 7"}`)
	s.stop()
	s.start()
	refused("after a restart", get(bearer), 403, "guest_revoked")
	var list struct{ Items []api.GuestRevocation }
	s.get(api.PathGuestRevocations, &list)
	if len(list.Items) != 2 || list.Items[0].Claim != "snp.chip_id" {
		t.Errorf("%+v", list.Items)
	}
}

// What names nobody revokes nobody, and says so.
func TestGuestRevocationsThatNameNobody(t *testing.T) {
	s := newStage(t)
	for name, body := range map[string]string{
		"nothing":           `{}`,
		"only why":          `{"reason":"x"}`,
		"no reason":         `{"token_id":"x"}`,
		"misspelt":          `{"tokenid":"x","reason":"x"}`,
		"two":               `{"token_id":"x","claim":"snp.chip_id","value":"x","reason":"x"}`,
		"no platform":       `{"claim":"chip_id","value":"x","reason":"x"}`,
		"unknown platform":  `{"claim":"abacus.chip_id","value":"x","reason":"x"}`,
		"a whole platform":  `{"claim":"snp","value":"x","reason":"x"}`,
		"over before begun": `{"token_id":"x","reason":"x","until":"2020-01-01T00:00:00Z"}`,
	} {
		if a := s.admin(http.MethodPost, api.PathGuestRevocations, []byte(body)); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	viewer := "Authorization: Bearer " + s.token("eve", admin.Viewer, "*")
	if a := s.send(http.MethodPost, s.adminURL+api.PathGuestRevocations, []byte(`{"token_id":"x","reason":"x"}`), viewer); a.status != http.StatusForbidden {
		t.Errorf("a viewer: %d", a.status)
	}
	if a := s.admin(http.MethodDelete, api.PathGuestRevocations+"/none", nil); a.status != http.StatusNotFound {
		t.Errorf("no such revocation: %d", a.status)
	}
}
