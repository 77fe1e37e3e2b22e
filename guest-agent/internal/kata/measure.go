package kata

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// Events records in a register of the hardware what the agent did, where there
// is one. Errors are *fault.Fault with a ticket.
type Events interface {
	RecordOwn(ctx context.Context, operation, content string) error
}

// eventCreate is the event of a container that is about to be made.
const eventCreate = "CreateContainer"

// maxMeasuredArgs bounds the arguments that an event shows, in bytes. The digest
// is over all of them.
const maxMeasuredArgs = 4 << 10

// measure records what the host had a container made of, before anything of it
// runs: from then on evidence says so. Processes that are started in it later
// are not recorded, for probes start one every few seconds and a log only grows.
func (s *Server) measure(ctx context.Context, req *agent.CreateContainerRequest, image string) error {
	if s.events == nil {
		return nil
	}
	content, err := measured(req, image)
	if err != nil {
		return err
	}
	return s.events.RecordOwn(ctx, eventCreate, content)
}

// measured is the event's text: JSON with the image that was pulled, what runs,
// and the digest of the specification as the host sent it.
func measured(req *agent.CreateContainerRequest, image string) (string, error) {
	spec, err := proto.MarshalOptions{Deterministic: true}.Marshal(req.GetOCI())
	if err != nil {
		return "", fmt.Errorf("measure the container: %w", err)
	}
	args := req.GetOCI().GetProcess().GetArgs()
	if len(strings.Join(args, "")) > maxMeasuredArgs {
		args = nil
	}
	text, err := json.Marshal(struct {
		Container string   `json:"container"`
		Image     string   `json:"image,omitempty"` // digest of the platform's manifest
		Args      []string `json:"args,omitempty"`
		Spec      string   `json:"spec"`
	}{req.ContainerId, image, args, fmt.Sprintf("sha256:%x", sha256.Sum256(spec))})
	if err != nil {
		return "", fmt.Errorf("measure the container: %w", err)
	}
	return escaped(string(text)), nil
}

// escaped spells what an event may not hold as JSON allows it.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
