package broker

import (
	"maps"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// policies opens the policies of one tenant, whose store is st.
func (s *shared) policies(st store.Store, refs policy.References) (*policy.Documents, *policy.Engine) {
	docs := policy.NewDocuments(st, s.Now, policy.Settings{
		RequireStages: s.cfg.Policy.RequireStages, MaxVersions: s.cfg.Policy.MaxVersions,
		Selectors: slices.Collect(maps.Values(s.cfg.AttestationService.AttestationPolicySelectors)),
	})
	return docs, s.host.Engine(docs, refs)
}

// openHost starts what the policy engines of all tenants share.
func (s *shared) openHost() *policy.Host {
	c := s.cfg.Policy
	return policy.NewHost(policy.HostConfig{
		Now: s.Now, Logger: s.Logger, Record: c.RecordDecisions, MaxDecisions: c.MaxDecisions,
		KeepDecisions: time.Duration(c.DecisionDays) * 24 * time.Hour,
	})
}
