package genpolicy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/policy"
)

// maxLogLine bounds a line of a log in bytes: a request is in it.
const maxLogLine = 8 << 20

// Refusal is a request that a policy in learn mode would have refused.
type Refusal struct {
	Request string          `json:"request"`
	Why     string          `json:"why"`
	Input   json.RawMessage `json:"input"`
}

// ReadLog finds the refusals in the log of an agent that learns. Other lines are
// passed over: a console has many authors.
func ReadLog(r io.Reader) ([]Refusal, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLogLine)
	var found []Refusal
	for lines.Scan() {
		at := bytes.IndexByte(lines.Bytes(), '{')
		var line struct {
			Message string `json:"msg"`
			Refusal
		}
		if at < 0 || json.Unmarshal(lines.Bytes()[at:], &line) != nil || line.Message != policy.LearnMessage {
			continue
		}
		line.Input = slices.Clone(line.Input)
		found = append(found, line.Refusal)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return found, nil
}

// learned is the part of a request that can become data.
type learned struct {
	ContainerID string       `json:"container_id"`
	OCI         *learnedSpec `json:"OCI"`
	Process     *process     `json:"process"`
}

type learnedSpec struct {
	Process     process           `json:"Process"`
	Annotations map[string]string `json:"Annotations"`
}

type process struct {
	Args []string `json:"Args"`
	Env  []string `json:"Env"`
}

// learn turns requests into data where that is small: commands that may be run in
// a container, and variables that it may have. It returns the others, for a
// person to judge.
func (d *data) learn(refusals []Refusal) (left []Refusal) {
	for _, r := range refusals {
		if err := d.learnOne(r); err != nil {
			left = append(left, r)
		}
	}
	return left
}

var errNotSmall = errors.New("there is no small rule for this")

func (d *data) learnOne(r Refusal) error {
	var in learned
	if err := json.Unmarshal(r.Input, &in); err != nil {
		return err
	}
	switch {
	case r.Request == "ExecProcessRequest" && in.Process != nil && len(in.Process.Args) > 0 && len(d.Containers) == 1:
		c := d.Containers[0] // with several, a command's container is only an id
		if !slices.ContainsFunc(c.Exec, func(e []string) bool { return slices.Equal(e, in.Process.Args) }) {
			c.Exec = append(c.Exec, in.Process.Args)
		}
		return nil
	case r.Request == "CreateContainerRequest" && in.OCI != nil:
		return d.learnVariables(in.OCI)
	}
	return errNotSmall
}

// learnVariables takes variables that a container got beside its own.
func (d *data) learnVariables(in *learnedSpec) error {
	for _, c := range d.Containers {
		name, named := in.Annotations["io.kubernetes.cri.container-name"]
		if !slices.Equal(c.Args, in.Process.Args) || (named && name != c.Name) {
			continue
		}
		before := len(c.EnvAlso)
		for _, e := range in.Process.Env {
			if !slices.Contains(c.Env, e) && !slices.Contains(c.EnvAlso, e) {
				c.EnvAlso = append(c.EnvAlso, e)
			}
		}
		if len(c.EnvAlso) > before {
			return nil
		}
	}
	return errNotSmall
}
