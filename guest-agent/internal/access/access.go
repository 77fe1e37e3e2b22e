// Package access decides which container of a pod gets what the agent can have:
// resources, tokens, evidence, sealed secrets, events.
//
// The rules are the owner's, in init-data. Without rules every process that can
// reach the agent is served, as in the field: of the loopback API that is every
// process of the pod, of the sockets root alone. With rules a container gets
// what a rule says, and what is in no container nothing over TCP. Some calls are
// for the guest's own programs in any case, for they act on the guest.
//
// A container is known by its name in the pod. That name is the host's word
// unless an agent policy ties it to an image and a command (guest-agent
// genpolicy does), so rules are worth what the policy beside them is worth.
package access

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/caller"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Anyone is the name that means every container.
const Anyone = "*"

// Rule is what one container may have. Rules for the same container add up.
type Rule struct {
	Container string // name in the pod, or [Anyone]
	// Resources are URIs, and beginnings of URIs that end in "/"; [Anyone] is all.
	Resources []string
	Tokens    []string // types
	Evidence  bool
	Events    bool // may record some
	Sealed    bool // may have sealed secrets opened
}

// Hub is what is guarded.
type Hub interface {
	Resource(ctx context.Context, uri string) (secret.Bytes, error)
	Token(ctx context.Context, kind string) (secret.Bytes, error)
	Evidence(ctx context.Context, runtimeData []byte) ([]byte, error)
	AdditionalEvidence(ctx context.Context, runtimeData []byte) ([]byte, error)
	BindInitData(ctx context.Context, digest []byte) error
	Platform() measure.Platform
	AdditionalPlatforms() []measure.Platform
	Record(ctx context.Context, e eventlog.RuntimeEvent) error
	Unseal(ctx context.Context, text string) (secret.Bytes, error)
	PullImage(ctx context.Context, ref, bundle string) (hub.PulledImage, error)
	UnwrapKey(ctx context.Context, packet []byte) (secret.Bytes, error)
	SecureMount(ctx context.Context, volumeType string, options map[string]string, flags []string, mountPoint string) error
	Refuse(ctx context.Context, kind hub.ObjectKind, name string, err error) error
}

// Guard is a hub that asks who asks. Contexts are those of [caller.Through].
type Guard struct {
	hub   Hub
	rules []Rule
}

// New returns a guard of h. No rules serve everybody.
func New(h Hub, rules []Rule) *Guard { return &Guard{h, rules} }

// Validate finds rules that can never be meant.
func Validate(rules []Rule) error {
	for n, r := range rules {
		if r.Container == "" {
			return fmt.Errorf("access[%d]: no container", n)
		}
		for _, uri := range r.Resources {
			if uri == Anyone {
				continue
			}
			scheme, rest, ok := strings.Cut(uri, "://")
			_, path, slash := strings.Cut(rest, "/")
			if !ok || !slash || path == "" || scheme != "kbs" && !strings.HasPrefix(scheme, "kbs+") || strings.ContainsAny(uri, "?#%*") {
				return fmt.Errorf("access[%d]: resource %.80q: want kbs:///REPOSITORY/ or more of a URI, or %q", n, uri, Anyone)
			}
		}
		for _, kind := range r.Tokens {
			if kind != hub.TokenKBS && kind != hub.TokenAS {
				return fmt.Errorf("access[%d]: there is no token type %.40q", n, kind)
			}
		}
	}
	return nil
}

// allowed asks the rules, if there are any.
func (g *Guard) allowed(ctx context.Context, what string, may func(Rule) bool) error {
	if len(g.rules) == 0 {
		return nil
	}
	who, rooted, err := caller.From(ctx)
	switch {
	case err != nil:
		return fault.Newf(fault.Forbidden, "%s: who asks is not known: %w", what, err)
	case who.Container == nil && rooted:
		return nil // a program of the guest
	case who.Container == nil:
		return fault.Newf(fault.Forbidden, "%s: process %d is in no container", what, who.PID)
	}
	for _, r := range g.rules {
		if (r.Container == who.Container.Name || r.Container == Anyone) && may(r) {
			return nil
		}
	}
	return fault.Newf(fault.Forbidden, "%s: no rule gives it to container %.64q", what, who.Container.Name)
}

// ownPrograms lets through what is not in a container and came as root.
func (g *Guard) ownPrograms(ctx context.Context, what string) error {
	who, rooted, err := caller.From(ctx)
	switch {
	case err != nil:
		return fault.Newf(fault.Forbidden, "%s: who asks is not known: %w", what, err)
	case !rooted || who.Container != nil:
		return fault.Newf(fault.Forbidden, "%s is for the guest's own programs", what)
	}
	return nil
}

// Resource is [hub.Hub.Resource] for whom a rule gives the resource to.
func (g *Guard) Resource(ctx context.Context, uri string) (secret.Bytes, error) {
	if err := g.allowed(ctx, "a resource", func(r Rule) bool { return covers(r.Resources, uri) }); err != nil {
		return secret.Bytes{}, g.hub.Refuse(ctx, hub.ObjectResource, uri, err)
	}
	return g.hub.Resource(ctx, uri)
}

// covers reports whether a list has a resource. Both sides are spelt as the
// broker spells them: nothing is resolved or unescaped.
func covers(list []string, uri string) bool {
	u, err := client.ParseResourceURI(uri)
	if err != nil {
		return false
	}
	u.Query = ""
	name := u.String()
	return slices.ContainsFunc(list, func(may string) bool {
		return may == Anyone || may == name || strings.HasSuffix(may, "/") && strings.HasPrefix(name, may)
	})
}

// Token is [hub.Hub.Token].
func (g *Guard) Token(ctx context.Context, kind string) (secret.Bytes, error) {
	if err := g.allowed(ctx, "a token", func(r Rule) bool { return slices.Contains(r.Tokens, kind) }); err != nil {
		return secret.Bytes{}, g.hub.Refuse(ctx, hub.ObjectToken, kind, err)
	}
	return g.hub.Token(ctx, kind)
}

// Evidence is [hub.Hub.Evidence].
func (g *Guard) Evidence(ctx context.Context, runtimeData []byte) ([]byte, error) {
	if err := g.allowed(ctx, "evidence", func(r Rule) bool { return r.Evidence }); err != nil {
		return nil, g.hub.Refuse(ctx, hub.ObjectEvidence, "", err)
	}
	return g.hub.Evidence(ctx, runtimeData)
}

// AdditionalEvidence is [hub.Hub.AdditionalEvidence].
func (g *Guard) AdditionalEvidence(ctx context.Context, runtimeData []byte) ([]byte, error) {
	if err := g.allowed(ctx, "evidence", func(r Rule) bool { return r.Evidence }); err != nil {
		return nil, g.hub.Refuse(ctx, hub.ObjectEvidence, "", err)
	}
	return g.hub.AdditionalEvidence(ctx, runtimeData)
}

// BindInitData is [hub.Hub.BindInitData]: whoever knows the digest may hear that
// it is the one.
func (g *Guard) BindInitData(ctx context.Context, digest []byte) error {
	return g.hub.BindInitData(ctx, digest)
}

// AdditionalPlatforms are like [Guard.Platform].
func (g *Guard) AdditionalPlatforms() []measure.Platform { return g.hub.AdditionalPlatforms() }

// Platform is nothing that anybody needs a right to know.
func (g *Guard) Platform() measure.Platform { return g.hub.Platform() }

// Record is [hub.Hub.Record].
func (g *Guard) Record(ctx context.Context, e eventlog.RuntimeEvent) error {
	if err := g.allowed(ctx, "an event", func(r Rule) bool { return r.Events }); err != nil {
		return g.hub.Refuse(ctx, hub.ObjectEvent, e.Operation, err)
	}
	return g.hub.Record(ctx, e)
}

// Unseal is [hub.Hub.Unseal].
func (g *Guard) Unseal(ctx context.Context, text string) (secret.Bytes, error) {
	if err := g.allowed(ctx, "a sealed secret", func(r Rule) bool { return r.Sealed }); err != nil {
		return secret.Bytes{}, g.hub.Refuse(ctx, hub.ObjectSealed, "", err)
	}
	return g.hub.Unseal(ctx, text)
}

// PullImage is [hub.Hub.PullImage], for the guest's own programs.
func (g *Guard) PullImage(ctx context.Context, ref, bundle string) (hub.PulledImage, error) {
	if err := g.ownPrograms(ctx, "an image"); err != nil {
		return hub.PulledImage{}, g.hub.Refuse(ctx, hub.ObjectImage, ref, err)
	}
	return g.hub.PullImage(ctx, ref, bundle)
}

// UnwrapKey is [hub.Hub.UnwrapKey], for the guest's own programs.
func (g *Guard) UnwrapKey(ctx context.Context, packet []byte) (secret.Bytes, error) {
	if err := g.ownPrograms(ctx, "the key of a layer"); err != nil {
		return secret.Bytes{}, g.hub.Refuse(ctx, hub.ObjectKey, "", err)
	}
	return g.hub.UnwrapKey(ctx, packet)
}

// SecureMount mounts a volume as package securemount does, for the guest's own programs.
func (g *Guard) SecureMount(ctx context.Context, volumeType string, options map[string]string, flags []string, mountPoint string) error {
	if err := g.ownPrograms(ctx, "a volume"); err != nil {
		return g.hub.Refuse(ctx, hub.ObjectVolume, mountPoint, err)
	}
	return g.hub.SecureMount(ctx, volumeType, options, flags, mountPoint)
}
