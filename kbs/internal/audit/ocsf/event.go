// Package ocsf gives entries of the audit log the form that security event
// stores expect: the Open Cybersecurity Schema Framework, version 1.3. Every
// entry becomes one event, and its index in the log comes with it, so that
// whoever holds the event can ask for a proof that it is in the log.
//
// The schema of what is written is made from these types (see [Schema]).
package ocsf

// Version is that of the framework.
const Version = "1.3.0"

// Event is what all classes have in common, and the objects of each: members
// that a class does not have are absent.
type Event struct {
	ActivityID   int        `json:"activity_id" doc:"what was done, by the class's own numbers; 99 is none of these"`
	ActivityName string     `json:"activity_name"`
	CategoryUID  int        `json:"category_uid"`
	CategoryName string     `json:"category_name"`
	ClassUID     int        `json:"class_uid"`
	ClassName    string     `json:"class_name"`
	TypeUID      int        `json:"type_uid" doc:"class_uid * 100 + activity_id"`
	SeverityID   int        `json:"severity_id" doc:"1 informational, 2 low, 3 medium (a refusal), 4 high (a failure of the broker)"`
	Severity     string     `json:"severity"`
	StatusID     int        `json:"status_id" doc:"1 success, 2 failure"`
	Status       string     `json:"status"`
	StatusCode   string     `json:"status_code,omitempty" doc:"the code of a refusal: docs/reference/codes.md"`
	Time         int64      `json:"time" doc:"milliseconds since 1970, UTC"`
	Message      string     `json:"message"`
	Metadata     Metadata   `json:"metadata"`
	Actor        *Actor     `json:"actor,omitempty"`
	User         *User      `json:"user,omitempty" doc:"who attested or wanted to administer"`
	Service      *Service   `json:"service,omitempty"`
	API          *API       `json:"api,omitempty"`
	App          *Product   `json:"app,omitempty"`
	SrcEndpoint  *Endpoint  `json:"src_endpoint,omitempty"`
	Resources    []Resource `json:"resources,omitempty"`
	Unmapped     Unmapped   `json:"unmapped"`
	RawData      string     `json:"raw_data" doc:"the entry as it was hashed: its RFC 6962 leaf hash covers exactly these bytes"`
}

// Metadata says where the event comes from.
type Metadata struct {
	Version        string  `json:"version"`
	Product        Product `json:"product"`
	LogName        string  `json:"log_name" doc:"the origin of the log, as in its checkpoints"`
	Sequence       int64   `json:"sequence" doc:"the index in the log, from 0, without gaps: a proof of inclusion is to be had for it"`
	UID            string  `json:"uid" doc:"log_name, a slash and sequence: unique, and the same when an event is delivered again"`
	EventCode      string  `json:"event_code" doc:"the kind of the entry: docs/reference/audit.md"`
	CorrelationUID string  `json:"correlation_uid,omitempty" doc:"the ticket under which a refusal can be explained"`
	TenantUID      string  `json:"tenant_uid" doc:"the tenant's name"`
}

// Product is this broker.
type Product struct {
	Name       string `json:"name"`
	VendorName string `json:"vendor_name"`
	Version    string `json:"version"`
}

// Actor is who did it.
type Actor struct {
	User User `json:"user"`
}

// User is a guest, an administrator, or the broker itself.
type User struct {
	Name   string `json:"name"`
	UID    string `json:"uid" doc:"the subject of the entry"`
	Type   string `json:"type"`
	TypeID int    `json:"type_id" doc:"1 an administrator, 3 the broker itself, 99 a guest, 0 nobody that is known"`
}

// Service is what was asked.
type Service struct {
	Name string `json:"name"`
}

// API is what was called.
type API struct {
	Operation string  `json:"operation"`
	Service   Service `json:"service"`
}

// Endpoint is the far side. The broker keeps no addresses in its log, because
// those of guests mean nothing behind a host that nobody trusts.
type Endpoint struct {
	Name string `json:"name"`
}

// Resource is what was released or changed.
type Resource struct {
	Name string `json:"name"`
	Type string `json:"type" doc:"the name up to its first slash"`
}

// Unmapped is what the framework has no members for.
type Unmapped struct {
	Decision string            `json:"decision"`
	Details  map[string]string `json:"details,omitempty"`
}
