package server_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
)

// Guests that are denied for one reason are one group, which leads to a ticket.
func TestTicketGroups(t *testing.T) {
	s := newStage(t)
	var refused api.ErrorInformation
	for range 2 {
		a := s.send(http.MethodGet, s.guestURL+api.PathResource+"/a/b/c", nil, "Authorization: Bearer nonsense")
		if a.status != http.StatusUnauthorized {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if err := json.Unmarshal(a.body, &refused); err != nil {
			t.Fatal(err)
		}
	}
	var all struct{ Items []api.TicketGroup }
	s.get(api.PathTicketGroups+"?limit=10", &all)
	if len(all.Items) != 1 || all.Items[0].Code != "token_invalid" || all.Items[0].Tickets[0] != refused.Ticket {
		t.Fatalf("%+v", all.Items)
	}
	var g api.TicketGroup
	s.get(api.PathTicketGroups+"/"+all.Items[0].ID, &g)
	if g.ID != s.explain(refused.Ticket).Group {
		t.Errorf("group %+v", g)
	}
	if a := s.admin(http.MethodGet, api.PathTicketGroups+"/none", nil); a.status != http.StatusNotFound {
		t.Errorf("no such group: %d", a.status)
	}
}

// A group that somebody knows about is left out for a while. Nothing else is:
// refusals go on being counted and audited.
func TestTicketGroupSilence(t *testing.T) {
	s := newStage(t)
	frozen := time.Now()
	s.clock.stop(frozen)
	refuse := func(path string) {
		s.send(http.MethodGet, s.guestURL+api.PathResource+path, nil, "Authorization: Bearer nonsense")
	}
	list := func(query string) []api.TicketGroup {
		var all struct{ Items []api.TicketGroup }
		s.get(api.PathTicketGroups+query, &all)
		return all.Items
	}
	refuse("/a/b/c")
	id := list("")[0].ID
	at := api.PathTicketGroups + "/" + id + "/silence"
	until := frozen.Add(30 * time.Minute).UTC().Format(time.RFC3339)
	for name, body := range map[string]string{
		"no reason":       `{"until":"` + until + `"}`,
		"no end":          `{"reason":"known"}`,
		"an end long ago": `{"reason":"known","until":"2020-01-01T00:00:00Z"}`,
		"an end too late": `{"reason":"known","until":"` + frozen.AddDate(1, 0, 0).UTC().Format(time.RFC3339) + `"}`,
		"misspelt":        `{"reason":"known","till":"` + until + `"}`,
		"too much to say": `{"reason":"` + strings.Repeat("x", 1025) + `","until":"` + until + `"}`,
	} {
		if a := s.admin(http.MethodPut, at, []byte(body)); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	good := []byte(`{"reason":"the scanner of team b","until":"` + until + `"}`)
	if a := s.admin(http.MethodPut, api.PathTicketGroups+"/none/silence", good); a.status != http.StatusNotFound {
		t.Errorf("no such group: %d", a.status)
	}
	if a := s.send(http.MethodPut, s.adminURL+at, good, "Authorization: Bearer "+s.token("eve", admin.Viewer, "*")); a.status != http.StatusForbidden {
		t.Errorf("a viewer: %d", a.status)
	}
	s.must(http.MethodPut, at, good)
	if got := list(""); len(got) != 1 || got[0].Code != "forbidden" { // the viewer's
		t.Errorf("listed: %+v", got)
	}
	refuse("/a/b/d")
	var g api.TicketGroup
	s.get(api.PathTicketGroups+"/"+id, &g)
	if g.Count != 2 || g.Silence == nil || g.Silence.Reason != "the scanner of team b" || g.Silence.Author == "" || g.Silence.Since.IsZero() {
		t.Errorf("%+v %+v", g, g.Silence)
	}
	if got := list("?silenced=true"); len(got) != 2 {
		t.Errorf("with the silenced: %+v", got)
	}
	if a := s.admin(http.MethodGet, api.PathTicketGroups+"?silenced=maybe", nil); a.status != http.StatusBadRequest {
		t.Errorf("maybe: %d", a.status)
	}
	s.clock.stop(frozen.Add(30 * time.Minute))
	if got := list(""); len(got) != 2 {
		t.Errorf("when its time is over: %+v", got)
	}
	if a := s.admin(http.MethodDelete, at, nil); a.status != http.StatusNotFound {
		t.Errorf("ending what has ended: %d", a.status)
	}
	s.clock.stop(frozen.Add(20 * time.Minute))
	s.must(http.MethodDelete, at, nil)
	if got := list(""); len(got) != 2 {
		t.Errorf("unsilenced: %+v", got)
	}
	var kinds []string
	for _, e := range s.entries() {
		if e.Object == "ticketgroup/"+id {
			kinds = append(kinds, string(e.Kind)+" "+e.Details["reason"])
		}
	}
	if !slices.Equal(kinds, []string{"ticketgroup.silence the scanner of team b", "ticketgroup.unsilence "}) {
		t.Errorf("audited: %q", kinds)
	}
}
