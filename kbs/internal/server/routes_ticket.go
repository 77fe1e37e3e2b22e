package server

import "github.com/vouchsafe-cc/vouchsafe/kbs/api"

func ticketRoutes() []Route {
	return []Route{
		{Pattern: "GET " + api.PathTickets, ID: "listTickets", Summary: "List refusals, newest first",
			Query:  []Query{{"limit", "at most this many, from 1 to 1000 (100)", int64(0)}},
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(items[api.Explanation]{})), admin: (*Server).listTickets},
		{Pattern: "GET " + api.PathTickets + "/{ticket}", ID: "getTicket", Summary: "Explain a refusal",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.Explanation{})), admin: (*Server).getTicket},
		{Pattern: "GET " + api.PathTicketGroups, ID: "listTicketGroups", Summary: "List refusals by their root cause, the last met first",
			Query: []Query{{"limit", "at most this many, from 1 to 500 (100)", int64(0)},
				{"silenced", "true: those that are silenced too", ""}},
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(items[api.TicketGroup]{})), admin: (*Server).listTicketGroups},
		{Pattern: "GET " + api.PathTicketGroups + "/{id}", ID: "getTicketGroup", Summary: "Read what is known of a root cause",
			Access: viewer, On: OnAdmin, Answers: ok(jsonBody(api.TicketGroup{})), admin: (*Server).getTicketGroup},
		{Pattern: "PUT " + api.PathTicketGroups + "/{id}/silence", ID: "silenceTicketGroup", Change: "ticketgroup.silence",
			Summary: "Leave a root cause out of the listing for a time; its refusals go on being recorded",
			Access:  operator, On: OnAdmin, Request: jsonBody(api.Silence{}, "reason", "until"), Answers: ok(jsonBody(api.Silence{})), admin: (*Server).silenceTicketGroup},
		{Pattern: "DELETE " + api.PathTicketGroups + "/{id}/silence", ID: "unsilenceTicketGroup", Change: "ticketgroup.unsilence", Summary: "List a root cause again",
			Access: operator, On: OnAdmin, Answers: noContent(), admin: (*Server).unsilenceTicketGroup},
	}
}
