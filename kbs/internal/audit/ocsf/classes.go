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

// mappingOf returns how a kind is shown. One that is not here is a change of
// the API that the framework has no word for.
func mappingOf(kind api.AuditKind) mapping {
	switch kind {
	case api.AuditAuth, api.AuditAttest, api.AuditAdmin:
		return mapping{authentication, 1}
	case api.AuditRelease, api.AuditRead:
		return mapping{apiActivity, 2}
	case api.AuditTokenKeyCreate, api.AuditTokenKeyPublish:
		return mapping{apiActivity, 1}
	case api.AuditPolicyPut, api.AuditPolicyStage, api.AuditPolicyRollback, api.AuditRefValuePut, api.AuditResourcePut,
		api.AuditResourceMeta, api.AuditResourceRollback, api.AuditTokenKeyRotate, api.AuditKeyRotate, api.AuditMasterKeyRotate,
		api.AuditMasterKeyRetire, api.AuditTenantPut, api.AuditAdminRevoke:
		return mapping{apiActivity, 3}
	case api.AuditPolicyDelete, api.AuditRefValueDelete, api.AuditResourceDelete, api.AuditResourceDestroy,
		api.AuditTenantCondemn, api.AuditTenantDelete:
		return mapping{apiActivity, 4}
	case api.AuditBrokerStart, api.AuditRestore:
		return mapping{lifecycle, 3}
	case api.AuditSinkCaught:
		return mapping{lifecycle, 6}
	case api.AuditSinkBehind:
		return mapping{lifecycle, 7}
	case api.AuditGuest, api.AuditGuestRefusal, api.AuditApprovalRequest, api.AuditApprovalApprove, api.AuditApprovalDeny:
	}
	return mapping{apiActivity, other}
}
