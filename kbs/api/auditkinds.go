package api

// AuditKind is what an entry of the audit log tells. The kinds below are all
// that there are: docs/reference/audit.md is made from their table, and a test
// finds a kind that is used and not in it.
type AuditKind string

// What guests do.
const (
	AuditAuth         AuditKind = "auth"
	AuditAttest       AuditKind = "attest"
	AuditEvaluate     AuditKind = "evaluate"
	AuditRelease      AuditKind = "release"
	AuditGuest        AuditKind = "guest"
	AuditGuestRefusal AuditKind = "guest.refusal"
)

// What administrators do.
const (
	AuditAdmin            AuditKind = "admin"
	AuditPolicyPut        AuditKind = "policy.put"
	AuditPolicyDelete     AuditKind = "policy.delete"
	AuditPolicyStage      AuditKind = "policy.stage"
	AuditPolicyRollback   AuditKind = "policy.rollback"
	AuditRefValuePut      AuditKind = "refvalue.put"
	AuditRefValueDelete   AuditKind = "refvalue.delete"
	AuditRefSetPut        AuditKind = "refset.put"
	AuditRefSetDelete     AuditKind = "refset.delete"
	AuditSignerPut        AuditKind = "signer.put"
	AuditSignerDelete     AuditKind = "signer.delete"
	AuditResourcePut      AuditKind = "resource.put"
	AuditResourceDelete   AuditKind = "resource.delete"
	AuditResourceMeta     AuditKind = "resource.metadata"
	AuditResourceRollback AuditKind = "resource.rollback"
	AuditResourceDestroy  AuditKind = "resource.destroy"
	AuditGuestRevoke      AuditKind = "guest.revoke"
	AuditGuestReinstate   AuditKind = "guest.reinstate"
	AuditTicketSilence    AuditKind = "ticketgroup.silence"
	AuditTicketUnsilence  AuditKind = "ticketgroup.unsilence"
	AuditMasterKeyRotate  AuditKind = "masterkey.rotate"
	AuditMasterKeyRetire  AuditKind = "masterkey.retire"
	AuditTokenKeyCreate   AuditKind = "token.key.create"
	AuditTokenKeyPublish  AuditKind = "token.key.publish"
	AuditTokenKeyRotate   AuditKind = "token.key.rotate"
)

// Who administers, and for whom.
const (
	AuditAdminRevoke     AuditKind = "admin.revoke"
	AuditTenantPut       AuditKind = "tenant.put"
	AuditTenantCondemn   AuditKind = "tenant.condemn"
	AuditTenantDelete    AuditKind = "tenant.delete"
	AuditApprovalRequest AuditKind = "approval.request"
	AuditApprovalApprove AuditKind = "approval.approve"
	AuditApprovalDeny    AuditKind = "approval.deny"
)

// AuditPluginCall is an administrator's call of a plugin, which may change
// something there.
const AuditPluginCall AuditKind = "plugin.call"

// AuditNebulaCACreate is a certificate authority that the broker made for the
// plugin nebula-ca.
const AuditNebulaCACreate AuditKind = "nebula_ca.create"

// What administrators ask for before there is a guest.
const (
	AuditAppraise        AuditKind = "appraise"
	AuditImagePolicyRead AuditKind = "image_policy.read"
)

// What concerns the broker and its log.
const (
	AuditBrokerStart  AuditKind = "broker.start"
	AuditBrokerReload AuditKind = "broker.reload"
	AuditRestore      AuditKind = "store.restore"
	AuditRead         AuditKind = "audit.read"
	AuditArchive      AuditKind = "audit.archive"
	AuditKeyRotate    AuditKind = "audit.key.rotate"
	AuditSinkBehind   AuditKind = "audit.sink.behind"
	AuditSinkCaught   AuditKind = "audit.sink.caught_up"
)

// AuditKindInfo is one row of the table of kinds.
type AuditKindInfo struct {
	Kind    AuditKind
	Object  string // the form of the entry's object; "" where there is none
	Meaning string // one sentence
}

// AuditKinds is the table of kinds, in the order of the reference.
func AuditKinds() []AuditKindInfo {
	return []AuditKindInfo{
		{AuditAuth, "", "A guest asked for a challenge and was refused, or the broker failed."},
		{AuditAttest, "token/CEREMONY", "A guest presented evidence and received an attestation token, or did not."},
		{AuditEvaluate, "token/CEREMONY", "Evidence was judged for another broker, or refused."},
		{AuditRelease, "resource/REPO/TYPE/TAG", "An attested guest asked for a resource and received it, or did not."},
		{AuditGuest, "", "The broker failed while a guest reported something."},
		{AuditGuestRefusal, "what was refused", "A guest agent refused an image or a request, and said so."},

		{AuditAdmin, "METHOD PATH", "An administrator was refused for want of a role, or the broker failed."},
		{AuditPolicyPut, "policy/KIND/ID@VERSION", "A policy was written; its SHA-256 is in the details."},
		{AuditPolicyDelete, "policy/KIND/ID@VERSION", "A policy was deleted."},
		{AuditPolicyStage, "policy/KIND/ID@VERSION", "A version of a policy was moved to another stage, or must not be."},
		{AuditPolicyRollback, "policy/KIND/ID@VERSION", "An earlier version of a policy is in force again."},
		{AuditRefValuePut, "refvalue/NAME", "A reference value was written; its SHA-256 is in the details."},
		{AuditRefValueDelete, "refvalue/NAME", "A reference value was deleted."},
		{AuditRefSetPut, "refset/ID", "A document of reference values was registered; its signer, or the reason to do without, is in the details."},
		{AuditRefSetDelete, "refset/ID", "A document of reference values was withdrawn with all that it said."},
		{AuditSignerPut, "signer/NAME", "A signer of reference values is trusted for the names in the details."},
		{AuditSignerDelete, "signer/NAME", "A signer of reference values is trusted no more."},
		{AuditResourcePut, "resource/REPO/TYPE/TAG", "A resource was written."},
		{AuditResourceDelete, "resource/REPO/TYPE/TAG", "A resource was deleted."},
		{AuditResourceMeta, "resource/REPO/TYPE/TAG", "What is said about a resource changed: its binding to images, hold and expiry are in the details."},
		{AuditResourceRollback, "resource/REPO/TYPE/TAG", "A former value of a resource was stored again."},
		{AuditResourceDestroy, "resource/REPO/TYPE/TAG", "A former value of a resource was wiped."},
		{AuditGuestRevoke, "guest-revocation/ID", "A guest's token, all evidence that shows a claim, or one lease is revoked; which, why and until when is in the details."},
		{AuditGuestReinstate, "guest-revocation/ID", "Such a revocation was taken back."},
		{AuditTicketSilence, "ticketgroup/ID", "Refusals of one cause are left out of the listing; why, and until when, is in the details."},
		{AuditTicketUnsilence, "ticketgroup/ID", "Refusals of that cause are listed again."},
		{AuditPluginCall, "PLUGIN/PATH", "An administrator called a plugin with the method in the details."},
		{AuditNebulaCACreate, "nebula-ca/FINGERPRINT", "A certificate authority for Nebula networks was made; its name and its end are in the details."},
		{AuditAppraise, "evidence", "An administrator had evidence judged as a guest's would be; what came of it is in the details, and nothing was released."},
		{AuditImagePolicyRead, "resource/REPO/TYPE/TAG", "An administrator read a resource that is an image policy, or was refused one that is not."},
		{AuditMasterKeyRotate, "masterkey/ID", "New values are under another master key from now on, and all others are moved to it."},
		{AuditMasterKeyRetire, "masterkey/ID", "Nothing is under a former master key any more."},
		{AuditTokenKeyCreate, "token-key/ID", "A key that signs attestation tokens was made."},
		{AuditTokenKeyPublish, "token-key/ID", "The public half of a key kept elsewhere was published."},
		{AuditTokenKeyRotate, "token-key/ID", "Attestation tokens are signed with another key from now on."},

		{AuditAdminRevoke, "issuer/ISSUER", "Admin tokens were revoked: one by its id, or all of a subject; both are in the details."},
		{AuditTenantPut, "tenant/NAME", "A tenant was created, changed, suspended or resumed; its state is in the details."},
		{AuditTenantCondemn, "tenant/NAME", "A suspended tenant began to be deleted: there is no way back."},
		{AuditTenantDelete, "tenant/NAME", "A tenant and all its records are gone."},
		{AuditApprovalRequest, "approval/ID", "A change that needs a second person was asked for; what it is stands in the details."},
		{AuditApprovalApprove, "approval/ID", "A second person approved a change; the entry of the change itself names both."},
		{AuditApprovalDeny, "approval/ID", "A change was denied, or withdrawn by who asked for it."},

		{AuditBrokerStart, "", "A broker started; settings that weaken it are in the details."},
		{AuditBrokerReload, "", "A running broker took over other settings, certificates, revocation lists or roots; which, is in the details."},
		{AuditRestore, "", "The store was restored from a backup; everything before this entry comes from it."},
		{AuditRead, "audit/entries", "An administrator read the audit log: one entry for each credential and hour."},
		{AuditArchive, "audit/entries", "The entries below the size in the details lie in somebody's files from now on; the log keeps the root of their tree."},
		{AuditKeyRotate, "audit/key", "Checkpoints are signed with another key from now on; the hand-over is in the details."},
		{AuditSinkBehind, "audit/sink/NAME", "A required sink has not confirmed entries for too long: releases and changes are refused."},
		{AuditSinkCaught, "audit/sink/NAME", "That sink confirmed again, and nothing is refused for its sake any more."},
	}
}
