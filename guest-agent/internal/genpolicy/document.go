package genpolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/open-policy-agent/opa/v1/util"
)

// Bounds of a file with pods.
const (
	maxDocument = 4 << 20 // bytes
	maxObjects  = 10_000  // in one list
)

// object is a Kubernetes object, as far as it can hold a pod.
type object struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Spec       ignored  `json:"spec"`
	// Items are the objects of a list.
	Items []json.RawMessage `json:"items"`
}

type metadata struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// pod is a pod, and where it comes from.
type pod struct {
	metadata
	podSpec
	kind      string
	generated bool // the pod's own name is not known yet
}

var documentBorder = regexp.MustCompile(`(?m)^---[ \t]*(?:#.*)?$`)

// parsePod finds the pod that is meant in a file, which may hold other objects
// beside it. Where there are several, which says the one: NAME or KIND/NAME.
func parsePod(text []byte, which string) (*pod, error) {
	all, err := parsePods(text)
	if err != nil {
		return nil, err
	}
	var found []*pod
	var names []string
	for _, p := range all {
		names = append(names, p.kind+"/"+p.Name)
		if which == "" || which == p.Name || strings.EqualFold(which, p.kind+"/"+p.Name) {
			found = append(found, p)
		}
	}
	switch {
	case len(all) == 0:
		return nil, errors.New("there is no pod")
	case len(found) == 0:
		return nil, fmt.Errorf("there is no %s, but %s", which, strings.Join(names, ", "))
	case len(found) > 1:
		return nil, fmt.Errorf("there is more than one pod (%s); a policy is for one: choose it with --pod", strings.Join(names, ", "))
	}
	return found[0], nil
}

// parsePods finds all pods.
func parsePods(text []byte) ([]*pod, error) {
	if len(text) > maxDocument {
		return nil, fmt.Errorf("%d bytes long, at most %d are read", len(text), maxDocument)
	}
	var all []*pod
	for i, document := range documentBorder.Split(string(text), -1) {
		if strings.TrimSpace(document) == "" {
			continue
		}
		found, err := parseDocument([]byte(document))
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

func parseDocument(text []byte) ([]*pod, error) {
	var raw any
	if err := util.Unmarshal(text, &raw); err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, nil // comments alone
	}
	clean, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	return parseObject(clean, true)
}

// parseObject finds the pods of an object, or of those in a list, which has no
// list in it.
func parseObject(text []byte, lists bool) ([]*pod, error) {
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	if strings.HasSuffix(o.Kind, "List") {
		if !lists || len(o.Items) > maxObjects {
			return nil, fmt.Errorf("a list in a list, or more than %d objects", maxObjects)
		}
		var all []*pod
		for _, item := range o.Items {
			found, err := parseObject(item, false)
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
		return all, nil
	}
	p, err := o.pod()
	if p == nil || err != nil {
		return nil, err
	}
	return []*pod{p}, nil
}

// template is where objects keep their pods.
type template struct {
	Template struct {
		Spec json.RawMessage `json:"spec"`
	} `json:"template"`
	JobTemplate struct {
		Spec struct {
			Template struct {
				Spec json.RawMessage `json:"spec"`
			} `json:"template"`
		} `json:"spec"`
	} `json:"jobTemplate"`
	Claims []struct {
		Metadata metadata `json:"metadata"`
	} `json:"volumeClaimTemplates"`
}

// pod returns the pod of an object, nil for a kind that has none.
func (o object) pod() (*pod, error) {
	p := &pod{metadata: o.Metadata, kind: o.Kind, generated: o.Kind != "Pod"}
	spec := o.Spec
	var t template
	switch o.Kind {
	case "Pod":
	case "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController", "CronJob":
		if err := json.Unmarshal(o.Spec, &t); err != nil {
			return nil, fmt.Errorf("%s %s: %w", o.Kind, o.Metadata.Name, err)
		}
		if spec = t.Template.Spec; o.Kind == "CronJob" {
			spec = t.JobTemplate.Spec.Template.Spec
		}
		if len(spec) == 0 {
			return nil, fmt.Errorf("%s %s has no pod template", o.Kind, o.Metadata.Name)
		}
	default:
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(spec))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p.podSpec); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s %s: what it means for the policy is not known: %w", o.Kind, o.Metadata.Name, err)
	}
	var claims []volume
	for _, c := range t.Claims { // of a StatefulSet; they come before volumes of the same name
		claims = append(claims, volume{Name: c.Metadata.Name, Claim: ignored("{}")})
	}
	p.Volumes = append(claims, p.Volumes...)
	return p, nil
}
