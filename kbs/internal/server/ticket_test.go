package server_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
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
