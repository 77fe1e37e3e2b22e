package kata

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// endpoints are the requests that an image lets its agent answer, whatever any
// policy says (endpoints.allowed of the field's configuration file); nil for all.
type endpoints map[string]bool

// newEndpoints refuses names that no request has: who wrote one meant another.
// A method's name stands for its request.
func newEndpoints(allowed []string) (endpoints, error) {
	if allowed == nil {
		return nil, nil
	}
	known := map[string]string{}
	methods := agent.File_agent_agent_proto.Services().ByName("AgentService").Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		request := string(m.Input().Name())
		known[request], known[string(m.Name())] = request, request
	}
	e := endpoints{}
	for _, name := range allowed {
		request, ok := known[strings.TrimSpace(name)]
		if !ok {
			return nil, fmt.Errorf("endpoints.allowed: there is no request %.64q", name)
		}
		e[request] = true
	}
	return e, nil
}

// check answers in the field's words.
func (e endpoints) check(m proto.Message) error {
	request := string(m.ProtoReflect().Descriptor().Name())
	if e == nil || e[request] {
		return nil
	}
	return refusef(codes.Unimplemented, "%s is blocked", request)
}
