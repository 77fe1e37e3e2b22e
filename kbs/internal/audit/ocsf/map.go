package ocsf

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Source is what all events of a log have in common.
type Source struct {
	Log     string // the origin of the log
	Version string // of the broker
}

// defaultTenant is what the empty tenant of an entry means.
const defaultTenant = "default"

func (s Source) product() Product {
	return Product{Name: "kbs", VendorName: "Vouchsafe", Version: s.Version}
}

// Event shows an entry, and the bytes that were hashed for it, as an event.
func (s Source) Event(e api.AuditEntry, leaf []byte) Event {
	m := mappingOf(e.Kind)
	severity, severityName := severityOf(e.Decision)
	out := Event{
		ActivityID: m.activity, ActivityName: m.class.activities[m.activity],
		CategoryUID: m.class.category, CategoryName: m.class.categoryName,
		ClassUID: m.class.uid, ClassName: m.class.name, TypeUID: m.class.uid*100 + m.activity,
		SeverityID: severity, Severity: severityName,
		StatusID: 1, Status: "Success", StatusCode: e.Code,
		Time: e.Time.UnixMilli(), Message: message(e),
		Metadata: Metadata{
			Version: Version, Product: s.product(), LogName: s.Log, Sequence: e.Index,
			UID: s.Log + "/" + strconv.FormatInt(e.Index, 10), EventCode: string(e.Kind),
			CorrelationUID: e.Ticket, TenantUID: cmp.Or(e.Tenant, defaultTenant),
		},
		Unmapped: Unmapped{Decision: e.Decision, Details: e.Details},
		RawData:  string(leaf),
	}
	if e.Decision == "deny" || e.Decision == "error" {
		out.StatusID, out.Status = 2, "Failure"
	}
	if e.Object != "" {
		kind, _, _ := strings.Cut(e.Object, "/")
		out.Resources = []Resource{{Name: e.Object, Type: kind}}
	}
	s.objects(&out, m.class, e)
	return out
}

// objects adds those that the class wants.
func (s Source) objects(out *Event, c class, e api.AuditEntry) {
	who := userOf(e.Subject)
	switch c.uid {
	case authentication.uid:
		out.User, out.Service = &who, &Service{Name: "kbs"}
	case lifecycle.uid:
		app := s.product()
		out.App, out.Actor = &app, &Actor{User: who}
	default:
		out.Actor = &Actor{User: who}
		out.API = &API{Operation: string(e.Kind), Service: Service{Name: "kbs"}}
		out.SrcEndpoint = &Endpoint{Name: who.Name}
	}
}

func severityOf(decision string) (int, string) {
	switch decision {
	case "allow":
		return 1, "Informational"
	case "deny":
		return 3, "Medium"
	case "error":
		return 4, "High"
	}
	return 2, "Low"
}

func userOf(subject string) User {
	switch name, isAdmin := strings.CutPrefix(subject, "admin:"); {
	case isAdmin:
		return User{Name: name, UID: subject, Type: "User", TypeID: 1}
	case subject == "kbs":
		return User{Name: subject, UID: subject, Type: "System", TypeID: 3}
	case subject == "":
		return User{Name: "unknown", UID: "unknown", Type: "Unknown", TypeID: 0}
	}
	return User{Name: subject, UID: subject, Type: "Guest", TypeID: other}
}

// message is the entry as a line.
func message(e api.AuditEntry) string {
	words := []string{string(e.Kind), e.Decision}
	for _, w := range []string{e.Code, e.Object} {
		if w != "" {
			words = append(words, w)
		}
	}
	if e.Subject != "" {
		words = append(words, "by", e.Subject)
	}
	return strings.Join(words, " ")
}
