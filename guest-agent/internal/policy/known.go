package policy

import (
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// question is all that a policy can see of one of the requests that a container's
// streams consist of: those come in thousands per second, and are the same again
// and again. Equal questions have equal input documents.
type question struct {
	request         string
	container, exec string
	size            uint32 // of a read
}

// Bounds of what is remembered of one world: the host chooses the names, and how
// many there are.
const (
	maxKnown    = 512 // questions
	maxQuestion = 512 // bytes of its names
)

// questionOf returns the question that a request is, unless it is to be judged
// each time. A write whose bytes the policy may read never comes again.
func questionOf(m proto.Message, bytes bool) (question, bool) {
	var q question
	switch r := m.(type) {
	case *agent.ReadStreamRequest:
		q = question{"ReadStreamRequest", r.GetContainerId(), r.GetExecId(), r.GetLen()}
	case *agent.WriteStreamRequest:
		if bytes {
			return question{}, false
		}
		q = question{request: "WriteStreamRequest", container: r.GetContainerId(), exec: r.GetExecId()}
	default:
		return question{}, false
	}
	return q, len(q.container)+len(q.exec) <= maxQuestion
}

// known are the questions to which a world has said yes, without a note. It is
// part of that world, and ends with it.
type known struct {
	mu  sync.RWMutex
	yes map[question]struct{}
}

func (k *known) has(q question) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	_, ok := k.yes[q]
	return ok
}

// add forgets everything when there is no room: whoever still asks is judged once
// more.
func (k *known) add(q question) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.yes == nil || len(k.yes) >= maxKnown {
		k.yes = map[question]struct{}{}
	}
	k.yes[q] = struct{}{}
}
