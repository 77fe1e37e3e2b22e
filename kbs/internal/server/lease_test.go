package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
)

// leases lists by a query, such as "claim=snp.chip_id=8f".
func (s *stage) leases(query string) []api.Lease {
	s.t.Helper()
	var page api.LeasePage
	s.get(api.PathLeases+"?"+query, &page)
	return page.Items
}

// What was given is written down with whom and until when, renewed by another
// token, and ends by time, by revocation and with the resource.
func TestLeases(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	sim, other := guest(t, "lab", "agent 1"), guest(t, "lab", "agent 1")
	fetch := func(text string) answer {
		return s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, "Authorization: Bearer "+text)
	}
	given := func(text string) {
		t.Helper()
		if a := fetch(text); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if got := s.leases(""); len(got) != 0 {
		t.Fatalf("before: %+v", got)
	}
	first := s.auth(sim).token()
	given(first)
	entries := len(s.entries())
	given(first)
	if n := len(s.entries()); n != entries+1 {
		t.Errorf("a release that is known made %d entries", n-entries)
	}
	given(s.auth(other).token())
	chip, _ := claimsOf(t, sim)["chip_id"].(string)
	one := func(query string) api.Lease {
		t.Helper()
		got := s.leases(query)
		if len(got) != 1 {
			t.Fatalf("%s: %+v", query, got)
		}
		return got[0]
	}
	mine := one("claim=" + url.QueryEscape("snp.chip_id="+strings.ToUpper(chip)))
	if mine.State != api.LeaseActive || mine.Object != "resource/"+resourcePath || mine.Platform != "snp" || mine.Version != 1 || mine.Claims["snp.chip_id"] != chip || mine.Claims["snp.report_data"] != "" {
		t.Errorf("%+v", mine)
	}
	if life := mine.Until.Sub(mine.Since); life < time.Minute || life > 10*time.Minute {
		t.Errorf("it lasts %s", life)
	}
	if n := len(s.leases("object=resource/" + resourcePath)); n != 2 {
		t.Errorf("%d have the resource", n)
	}
	if n := len(s.leases("object=resource/a/b/c")); n != 0 {
		t.Errorf("%d have another", n)
	}
	for _, bad := range []string{"state=lost", "claim=snp.chip_id"} {
		if a := s.admin(http.MethodGet, api.PathLeases+"?"+bad, nil); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, a.status)
		}
	}

	// The same guest with another token renews its lease.
	second := s.auth(sim).token()
	given(second)
	var again api.Lease
	s.get(api.PathLeases+"/"+mine.ID, &again)
	if again.Guest != mine.Guest || again.TokenID == mine.TokenID || !again.Since.Equal(mine.Since) || !again.Renewed.After(mine.Renewed) {
		t.Errorf("%+v after %+v", again, mine)
	}

	// Another tenant neither sees nor revokes it.
	a := s.in("a")
	if got := a.leases(""); len(got) != 0 {
		t.Errorf("another tenant: %+v", got)
	}
	for _, x := range []answer{
		a.admin(http.MethodGet, api.PathLeases+"/"+mine.ID, nil),
		a.admin(http.MethodPost, api.PathGuestRevocations, []byte(`{"lease":"`+mine.ID+`","reason":"x"}`)),
		s.admin(http.MethodPost, api.PathGuestRevocations, []byte(`{"lease":"none","reason":"x"}`)),
	} {
		if x.status != http.StatusNotFound {
			t.Errorf("%d %s", x.status, x.body)
		}
	}

	// Revoked, the guest does not get the object, with this or another token.
	r := s.cutOff(`{"lease":"` + mine.ID + `","reason":"incident 7"}`)
	for _, text := range []string{second, s.auth(sim).token()} {
		if x := fetch(text); x.status != http.StatusForbidden || x.info(t).Code != "guest_revoked" {
			t.Errorf("revoked: %d %s", x.status, x.body)
		}
	}
	given(s.auth(other).token())
	if l := one("state=revoked"); l.ID != mine.ID || !strings.Contains(l.Reason, "incident 7") {
		t.Errorf("%+v", l)
	}
	s.must(http.MethodDelete, api.PathGuestRevocations+"/"+r.ID, nil)
	given(second)

	// So it is shown when the guest is cut off as a whole.
	r = s.cutOff(`{"claim":"snp.chip_id","value":"` + chip + `","reason":"incident 8"}`)
	if l := one("state=revoked"); l.ID != mine.ID || !strings.Contains(l.Reason, "incident 8") {
		t.Errorf("%+v", l)
	}
	s.must(http.MethodDelete, api.PathGuestRevocations+"/"+r.ID, nil)

	// It ends with the resource.
	s.must(http.MethodDelete, api.PathResources+"/"+resourcePath, nil)
	if got := s.leases("state=ended"); len(got) != 2 || got[0].Reason != "the resource was deleted" {
		t.Errorf("%+v", got)
	}
}

// A guest that does not come back loses its leases, and they are forgotten a
// day later; they outlive the broker that gave them.
func TestLeasesEnd(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	if _, err := s.client(guest(t, "lab", "agent 1")).Resource(t.Context(), resourceURI); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.start()
	if got := s.leases(""); len(got) != 1 || got[0].State != api.LeaseActive {
		t.Fatalf("%+v", got)
	}
	s.clock.advance(10 * time.Minute)
	s.adminToken = s.token("root", admin.Owner, "*")
	if got := s.leases(""); len(got) != 1 || got[0].State != api.LeaseEnded || !strings.Contains(got[0].Reason, "did not come back") {
		t.Errorf("%+v", got)
	}
	s.clock.advance(24 * time.Hour)
	s.adminToken = s.token("root", admin.Owner, "*")
	if got := s.leases(""); len(got) != 0 {
		t.Errorf("a day later: %+v", got)
	}
}
