package ocsf

import "github.com/vouchsafe-cc/vouchsafe/kbs/api"

// class is one of the framework's event classes.
type class struct {
	uid          int
	name         string
	category     int
	categoryName string
	activities   map[int]string
	required     []string // objects that its events must have
}

const other = 99

var (
	authentication = class{
		uid: 3002, name: "Authentication", category: 3, categoryName: "Identity & Access Management",
		activities: map[int]string{1: "Logon", other: "Other"}, required: []string{"user", "service"},
	}
	apiActivity = class{
		uid: 6003, name: "API Activity", category: 6, categoryName: "Application Activity",
		activities: map[int]string{1: "Create", 2: "Read", 3: "Update", 4: "Delete", other: "Other"},
		required:   []string{"actor", "api", "src_endpoint"},
	}
	lifecycle = class{
		uid: 6002, name: "Application Lifecycle", category: 6, categoryName: "Application Activity",
		activities: map[int]string{3: "Start", 6: "Enable", 7: "Disable", other: "Other"}, required: []string{"app"},
	}
)

func classes() []class { return []class{authentication, lifecycle, apiActivity} }

// mapping is the class and activity of a kind.
type mapping struct {
	class    class
	activity int
}

// mappings are those kinds that the framework has a word for.
func mappings() map[api.AuditKind]mapping {
	logon, start := mapping{authentication, 1}, mapping{lifecycle, 3}
	create, read, update, remove := mapping{apiActivity, 1}, mapping{apiActivity, 2}, mapping{apiActivity, 3}, mapping{apiActivity, 4}
	return map[api.AuditKind]mapping{
		api.AuditAuth: logon, api.AuditAttest: logon, api.AuditEvaluate: logon, api.AuditAdmin: logon,
		api.AuditRelease: read, api.AuditRead: read, api.AuditAppraise: read, api.AuditImagePolicyRead: read,
		api.AuditTokenKeyCreate: create, api.AuditTokenKeyPublish: create, api.AuditNebulaCACreate: create,
		api.AuditPolicyPut: update, api.AuditPolicyStage: update, api.AuditPolicyRollback: update,
		api.AuditRefValuePut: update, api.AuditRefSetPut: update, api.AuditSignerPut: update,
		api.AuditResourcePut: update, api.AuditResourceMeta: update, api.AuditResourceRollback: update,
		api.AuditTokenKeyRotate: update, api.AuditKeyRotate: update, api.AuditMasterKeyRotate: update, api.AuditMasterKeyRetire: update,
		api.AuditTenantPut: update, api.AuditAdminRevoke: update,
		api.AuditPolicyDelete: remove, api.AuditRefValueDelete: remove, api.AuditRefSetDelete: remove, api.AuditSignerDelete: remove,
		api.AuditResourceDelete: remove, api.AuditArchive: remove, api.AuditResourceDestroy: remove, api.AuditTenantCondemn: remove, api.AuditTenantDelete: remove,
		api.AuditBrokerStart: start, api.AuditRestore: start, api.AuditBrokerReload: {lifecycle, other},
		api.AuditSinkCaught: {lifecycle, 6}, api.AuditSinkBehind: {lifecycle, 7},
	}
}

var mapped = mappings()

// mappingOf returns how a kind is shown; one that the framework has no word for
// is some other activity of the API.
func mappingOf(kind api.AuditKind) mapping {
	if m, ok := mapped[kind]; ok {
		return m
	}
	return mapping{apiActivity, other}
}
