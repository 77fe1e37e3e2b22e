package kata

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// Policy judges requests; package policy does the work. Its errors are faults.
type Policy interface {
	// Judge returns nil if the request may be carried out; done is then told
	// whether it was.
	Judge(ctx context.Context, m proto.Message) (done func(carriedOut bool), err error)
	// Consents says whether Judge would return nil at once, and need not be told
	// what became of the request. False says nothing.
	Consents(m proto.Message) bool
	// Volumes returns what the policy itself says of the volumes of a request that
	// was allowed.
	Volumes(ctx context.Context, m proto.Message) (policy.Volumes, error)
	// Replace puts another policy into force.
	Replace(ctx context.Context, text string) error
	// CheckImage judges the image that was pulled for a reference.
	CheckImage(ctx context.Context, ref, digest string) error
}

// denial is a request that the policy refused: the words that runtimes and their
// tests know (kata-agent 1.5), a code, and a ticket for whom the reason concerns.
type denial struct {
	request string
	fault   *fault.Fault
}

func (d *denial) Error() string { return d.request + " is blocked by policy: " + d.fault.Public() }

// hearing is one request on its way through the policy. A method finds it in its
// context.
type hearing struct {
	s     *Server
	ctx   context.Context //nolint:containedctx // of the one call that this is
	call  serving
	done  func(carriedOut bool)
	muted atomic.Bool
}

type hearingKey struct{}

// policed says whether the policy judges a method: all but those of grpc.Health.
func policed(fullMethod string) bool {
	return strings.HasSuffix(path.Dir(fullMethod), "grpc.AgentService")
}

// judge asks the policy. Whoever serves others of the connection too goes on with
// that only where the answer is at hand.
func (c *hearing) judge(m proto.Message) error {
	request := string(m.ProtoReflect().Descriptor().Name())
	switch {
	case c.s.policy == nil:
		return c.s.unjudged(request)
	case request == "CreateContainerRequest":
		c.ctx = policy.Hearing(c.ctx) // the policy is asked again on the way
	case c.s.policy.Consents(m):
		return nil
	}
	c.call.Wait()
	done, err := c.s.policy.Judge(c.ctx, m)
	if err == nil {
		c.done = done
		return nil
	}
	if request == "GetOOMEventRequest" {
		// Runtimes ask again at once after an error.
		return c.s.noEvents(c.ctx)
	}
	err = c.s.denied(c.ctx, request, err)
	if request == "ReadStreamRequest" {
		// An error would end the runtime's reader, and then the workload could
		// fill its pipe and block: its output is read, and goes nowhere.
		c.muted.Store(true)
		return nil
	}
	return err
}

// denied finds a ticket for a denial and tells whom it concerns.
func (s *Server) denied(ctx context.Context, request string, err error) error {
	f, ok := errors.AsType[*fault.Fault](s.refuse(ctx, request, err))
	if !ok {
		f = fault.New(fault.PolicyError, err)
	}
	return &denial{request, f}
}

// needsWaiver are the requests that decide what runs, needsPolicy those that
// change the machine below the pod.
var (
	needsWaiver = map[string]bool{"CreateContainerRequest": true, "ExecProcessRequest": true}
	needsPolicy = map[string]bool{
		"SetIPTablesRequest": true, "AddSwapRequest": true, "AddSwapPathRequest": true, "MemHotplugByProbeRequest": true, "SetGuestDateTimeRequest": true,
	}
)

// unjudged is the agent without a policy. Unless that was waived by name, what
// decides what runs is refused.
func (s *Server) unjudged(request string) error {
	switch {
	case needsPolicy[request]:
		return unpermitted(request)
	case s.trust || !needsWaiver[request]:
		return nil
	}
	return refusef(codes.PermissionDenied, "%s is blocked by policy: no agent policy is in force, and init-data does not waive it (insecure_no_agent_policy)", request)
}

// unpermitted is the answer to what changes the machine below the pod, which the
// host may do only where a policy allows it by name: waiving the policy does not.
func unpermitted(request string) error {
	return refusef(codes.PermissionDenied, "%s is blocked by policy: it needs an agent policy that allows it, and there is none", request)
}

// muted says whether the policy denies the output that a call reads.
func muted(ctx context.Context) bool {
	c, ok := ctx.Value(hearingKey{}).(*hearing)
	return ok && c.muted.Load()
}

// SetPolicy replaces the policy, if the one in force allowed this request.
func (s *Server) SetPolicy(ctx context.Context, req *agent.SetPolicyRequest) (*emptypb.Empty, error) {
	if s.policy == nil {
		return nil, refusef(codes.FailedPrecondition, "no agent policy is in force that could allow another")
	}
	if err := s.policy.Replace(ctx, req.Policy); err != nil {
		return nil, invalidf("the policy does not compile")
	}
	s.log.Warn("another agent policy is in force")
	return empty, nil
}

// allowedImages pulls only what the policy allows.
type allowedImages struct {
	sandbox.Images
	s *Server
}

// PullImage also compares what was pulled with the policy. The host's word for
// it, which the policy has judged before, is only a name.
func (a allowedImages) PullImage(ctx context.Context, ref, bundle string) (sandbox.Image, error) {
	img, err := a.Images.PullImage(ctx, ref, bundle)
	if err != nil {
		return img, err
	}
	if err := a.s.policy.CheckImage(ctx, ref, img.Digest); err != nil {
		const request = "CreateContainerRequest"
		released := a.ReleaseImage(context.WithoutCancel(ctx), bundle)
		if released != nil {
			a.s.log.Error("a refused image was not released", slog.Any("err", released))
		}
		return sandbox.Image{}, a.s.denied(ctx, request, err)
	}
	return img, nil
}
